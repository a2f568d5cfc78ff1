"""Near and far of a scene: chosen, of its files, measured by matched features, or estimated.

A measured range is cached in ``near_far.json`` in the scene's cache (``datasets.scene_cache``).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from datasets.matching import (
    LocalFeatures,
    detect_features,
    match_features,
    triangulate_pair,
)
from datasets.posed_scene import ReadView
from datasets.scene_cache import scene_cache
from datasets.view_selection import rank_by_pose
from utils.camera_rig import nearest_point_to_axes
from utils.cameras import Cameras, to_camera
from utils.errors import UserError
from utils.records import read_record, write_record

MATCHED_SIDE = 640
"""Longer side of the images in which features are matched."""
_CACHE_NAME = "near_far.json"
_MAX_VIEWS, _RANKS = 16, (0, 2)
"""Up to 16 views, spread evenly, are matched to their nearest and third nearest by pose."""
_FEATURES = 2000
_MIN_ANGLE = 1.0
"""Smallest triangulation angle in degrees; small, for distant points of forward-facing captures."""
_MIN_POINTS = 50
_QUANTILES = (0.005, 0.995)
_NEAR_FACTOR, _FAR_FACTOR = 0.7, 1.3
_NEAR_OF_FOCUS, _FAR_OF_FOCUS = 0.3, 2.5
_MIN_AXIS_SPREAD = 1e-3
"""Squared sine of the spread of viewing directions (2 degrees); below it they are parallel."""
_MIN_DEPTH_RATIO = 1e-3
"""Smallest ratio of nearest to farthest depth of the point that the cameras look at."""
_LOG = logging.getLogger(__name__)


MAX_DEPTH_RATIO = 1e4
"""Largest ratio of far to near; a smaller near is that of a stray point."""


def checked_near_far(near: float, far: float, source: str) -> Float[Tensor, " 2"]:
    """Check that 0 < near < far."""
    near_far = torch.tensor([near, far], dtype=torch.float64).float()
    if not 0 < near_far[0].item() < near_far[1].item() < float("inf"):
        raise UserError(
            f"{source}: near is {near:g} and far {far:g}; 0 < near < far must hold, in the units "
            "of the camera positions. --near_far NEAR FAR chooses others."
        )
    return near_far


def choose_near_far(
    chosen: tuple[float, float] | None,
    of_files: tuple[float, float] | None,
    cameras: Cameras,
    read_view: ReadView,
    source: Path,
) -> Float[Tensor, " 2"]:
    """Return the range that the user chose, else that of the files, else one that is measured.

    Where too few features match, the range is estimated from the cameras alone. ``cameras`` and
    ``read_view`` are at ``MATCHED_SIDE``. ``source`` is the file or folder of the cameras.
    """
    if chosen is not None:
        return checked_near_far(*chosen, f"{source}, with the given range")
    near_far = of_files or _cached_or_measured(cameras, read_view, source)
    if near_far is not None:
        return checked_near_far(*near_far, str(source))
    return estimate_near_far(cameras, str(source))


def measure_near_far(cameras: Cameras, read_view: ReadView) -> tuple[float, float] | None:
    """Triangulate matches of neighbouring views; return the range of their depths.

    Returns None if too few features match.
    """
    count = len(cameras.c2w)
    targets = torch.linspace(0, count - 1, min(count, _MAX_VIEWS)).round().long().tolist()
    pairs = {pair for target in targets for pair in _neighbour_pairs(target, cameras)}
    features: dict[int, LocalFeatures] = {}
    for view in sorted({view for pair in pairs for view in pair}):
        image = torch.from_numpy(read_view(view).image).permute(2, 0, 1)
        features[view] = detect_features(image, _FEATURES)
    depths = [torch.empty(0)]
    for pair in sorted(pairs):
        matches = match_features(*(features[view] for view in pair))
        points = triangulate_pair(matches, cameras[list(pair)], _MIN_ANGLE)
        depths += list(to_camera(points, cameras[list(pair)])[..., 2])
    all_depths = torch.cat(depths)
    return range_around(all_depths) if len(all_depths) >= _MIN_POINTS else None


def range_around(depths: Float[Tensor, " point"]) -> tuple[float, float]:
    """Return near and far around 99 % of the depths, with a margin."""
    low, high = np.quantile(depths.double().numpy(), _QUANTILES).tolist()
    return _NEAR_FACTOR * low, _FAR_FACTOR * high


def estimate_near_far(cameras: Cameras, source: str) -> Float[Tensor, " 2"]:
    """Estimate near and far from the cameras alone.

    The cameras look at the point closest to all optical axes. Near is 0.3 times its smallest
    z-depth in any view, far 2.5 times its largest. That is wide, because points outside the range
    cannot be rendered: it contains the known ranges of DTU (2.8 times as long as those), LLFF's
    fern (1.2) and instant-ngp's fox (1.9). A distant background is still cut off.
    """
    centers, axes = cameras.centers.double(), cameras.c2w[:, :3, 2].double()
    # The largest eigenvalue is 1 if all axes are parallel.
    spread = 1 - torch.linalg.eigvalsh(axes.T @ axes / len(axes))[-1].item()
    depths = torch.zeros(1)
    if spread > _MIN_AXIS_SPREAD:
        depths = ((nearest_point_to_axes(centers, axes) - centers) * axes).sum(-1)
    nearest, farthest = depths.min().item(), depths.max().item()
    if nearest <= _MIN_DEPTH_RATIO * farthest:
        raise UserError(
            f"{source}: has no near and far, and its cameras do not look at a common point, from "
            "which they could be estimated. Give near and far in the file, or --near_far."
        )
    near, far = _NEAR_OF_FOCUS * nearest, _FAR_OF_FOCUS * farthest
    _LOG.info("%s: has no near and far; estimated %.3g and %.3g", source, near, far)
    return torch.tensor([near, far])


def _neighbour_pairs(target: int, cameras: Cameras) -> list[tuple[int, int]]:
    ranked = rank_by_pose(cameras, target)
    others = [ranked[rank] for rank in _RANKS if rank < len(ranked)]
    return [(min(target, other), max(target, other)) for other in others]


def _cached_or_measured(
    cameras: Cameras, read_view: ReadView, source: Path
) -> tuple[float, float] | None:
    path = scene_cache(source if source.is_dir() else source.parent) / _CACHE_NAME
    cache, key = _read_cache(path), camera_key(cameras)
    entry = cache.get(source.name)
    if isinstance(entry, dict) and entry.get("cameras") == key:
        _log_once(f"{source}: near {entry['near']:.4g} and far {entry['far']:.4g}, see {path}")
        return entry["near"], entry["far"]
    _LOG.info("%s: has no near and far; matching features of neighbouring views, once", source)
    measured = measure_near_far(cameras, read_view)
    if measured is None:
        _LOG.warning("%s: too few features match to measure near and far", source)
        return None
    near, far = measured
    _LOG.info(
        "%s: near %.4g and far %.4g by matched features (--near_far: others)", source, near, far
    )
    cache[source.name] = {"cameras": key, "near": near, "far": far}
    # In a read-only folder the range is measured again next time.
    with contextlib.suppress(UserError):
        write_record(path, cache)
    return measured


def _read_cache(path: Path) -> dict[str, Any]:
    try:
        return read_record(path, "depth range")
    except UserError:
        return {}


def camera_key(cameras: Cameras) -> str:
    """Return what identifies cameras in the cache of measured ranges."""
    values = torch.cat([cameras.c2w.flatten(), cameras.intrinsics.flatten()]).float()
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()[:16]


@lru_cache(maxsize=4096)
def _log_once(message: str) -> None:
    _LOG.info("%s", message)
