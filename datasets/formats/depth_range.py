"""Near and far of a scene: chosen, or of its files, or measured once by matched features.

A measured range is kept in the scene's cache (``datasets.scene_cache``), in ``near_far.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from datasets.formats.checks import estimate_near_far, given_near_far
from datasets.matching import (
    LocalFeatures,
    detect_features,
    match_features,
    triangulate_pair,
)
from datasets.posed_scene import ReadView
from datasets.scene_cache import scene_cache
from datasets.view_selection import rank_by_pose
from utils.cameras import Cameras, to_camera
from utils.errors import UserError
from utils.files import read_json, write_text

MATCHED_SIDE = 640
"""Longer side of the images in which features are matched."""
_FILE_NAME = "near_far.json"
_VIEWS, _RANKS = 16, (0, 2)
"""So many views, spread evenly, are matched to their nearest and third nearest by pose."""
_FEATURES = 2000
_MIN_ANGLE = 1.0
"""Degrees between rays, so that the far parts of forward-facing captures count."""
_MIN_POINTS = 50
_QUANTILES = (0.005, 0.995)
_NEAR_FACTOR, _FAR_FACTOR = 0.7, 1.3
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SmallViews:
    """All views of a scene at a size at which features are matched."""

    cameras: Cameras
    read: ReadView


def choose_near_far(
    chosen: tuple[float, float] | None,
    of_files: tuple[float, float] | None,
    views: SmallViews,
    source: Path,
) -> Float[Tensor, " 2"]:
    """Return the range that was chosen, else that of the files, else what the images show.

    ``source`` is the file or folder of the cameras. Where too few features match, the range is
    estimated from the cameras alone.
    """
    if chosen is not None:
        return given_near_far(*chosen, f"{source}, with the given range")
    if of_files is not None:
        return given_near_far(*of_files, str(source))
    measured = _kept_or_measured(views, source)
    if measured is not None:
        return given_near_far(*measured, str(source))
    return estimate_near_far(views.cameras, str(source))


def measure_near_far(views: SmallViews) -> tuple[float, float] | None:
    """Return near and far around nearly all points that neighbouring views see; None if few."""
    count = len(views.cameras.c2w)
    targets = torch.linspace(0, count - 1, min(count, _VIEWS)).round().long().tolist()
    pairs = {pair for target in targets for pair in _pairs_of(target, views.cameras)}
    features: dict[int, LocalFeatures] = {}
    for view in sorted({view for pair in pairs for view in pair}):
        image = torch.from_numpy(views.read(view).image).permute(2, 0, 1)
        features[view] = detect_features(image, _FEATURES)
    depths = [torch.empty(0)]
    for pair in sorted(pairs):
        both = views.cameras[list(pair)]
        matches = match_features(*(features[view] for view in pair))
        points = triangulate_pair(matches, both, _MIN_ANGLE)
        depths += list(to_camera(points, both)[..., 2])
    found = torch.cat(depths)
    return range_around(found) if len(found) >= _MIN_POINTS else None


def range_around(depths: Float[Tensor, " point"]) -> tuple[float, float]:
    """Return near and far around nearly all of some positive depths, with a margin."""
    low, high = np.quantile(depths.double().numpy(), _QUANTILES).tolist()
    return _NEAR_FACTOR * low, _FAR_FACTOR * high


def _pairs_of(target: int, cameras: Cameras) -> list[tuple[int, int]]:
    ranked = rank_by_pose(cameras, target)
    others = [ranked[rank] for rank in _RANKS if rank < len(ranked)]
    return [(min(target, other), max(target, other)) for other in others]


def _kept_or_measured(views: SmallViews, source: Path) -> tuple[float, float] | None:
    path = scene_cache(source if source.is_dir() else source.parent) / _FILE_NAME
    kept, key = _read(path), _fingerprint(views.cameras)
    known = kept.get(source.name)
    if isinstance(known, dict) and known.get("cameras") == key:
        _log_once(f"{source}: near {known['near']:.4g} and far {known['far']:.4g}, see {path}")
        return known["near"], known["far"]
    _LOG.info("%s: gives no near and far; matching features of neighbouring views, once", source)
    measured = measure_near_far(views)
    if measured is None:
        _LOG.warning("%s: too few features match to measure near and far", source)
        return None
    near, far = measured
    _LOG.info(
        "%s: near %.4g and far %.4g by matched features (--near_far: others)", source, *measured
    )
    kept = {**kept, source.name: {"cameras": key, "near": near, "far": far}}
    # Where nothing can be kept, it is measured again.
    with contextlib.suppress(UserError):
        write_text(path, json.dumps(kept, indent=1))
    return measured


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return read_json(path, "depth range")
    except UserError:
        return {}


def _fingerprint(cameras: Cameras) -> str:
    """Name the cameras that a range was measured with."""
    values = torch.cat([cameras.c2w.flatten(), cameras.intrinsics.flatten()]).float()
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()[:16]


@lru_cache(maxsize=4096)
def _log_once(message: str) -> None:
    _LOG.info("%s", message)
