"""Which scans belong to a split, and which views go together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from utils.cameras import Cameras
from utils.errors import UserError

Split = Literal["train", "val", "test"]
Neighbours = Mapping[int, Sequence[int]]
"""For each view the others, most useful first."""

PROTOCOL_TARGETS = (32, 24, 23, 44)
"""Views of every DTU scan that are rendered in MVSNeRF's protocol (Chen et al., ICCV 2021)."""
PROTOCOL_POOL = (25, 21, 33, 22, 14, 15, 26, 30, 31, 35, 34, 43, 46, 29, 16, 36)
"""Views from which that protocol takes the sources: the nearest to the target."""

_LISTS = Path(__file__).resolve().parents[1] / "configs" / "lists"
_DEFAULT_SPLITS = {"train": "dtu_train_88.txt", "val": "dtu_test_16.txt", "test": "dtu_test_16.txt"}
_SCAN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MAX_BYTES = 1 << 24
_MAX_NAME = 200
_HOLD_OUT_EVERY = 8
_BEST_ANGLE, _NARROW, _WIDE = 5.0, 1.0, 10.0
"""Degrees: the triangulation angle that counts fully, and how fast smaller and larger ones fade."""


def find_scan_list(root: Path, split: Split) -> Path:
    """Return the list of a split: the data folder's own if it has one, else MVSNeRF's.

    A data folder with ``lists/test.txt`` but no ``lists/val.txt`` is validated on its test scans.
    """
    names = ("val", "test") if split == "val" else (split,)
    own = [root / "lists" / f"{name}.txt" for name in names]
    return next((path for path in own if path.is_file()), _LISTS / _DEFAULT_SPLITS[split])


def read_scene_list(path: Path) -> list[str]:
    """Read names of folders, one a line; ``#`` begins a comment.

    Raises:
        UserError: The list is unreadable, empty, or leads out of its data set.
    """
    lines = _content_lines(path)
    for number, line in lines:
        if len(line) > _MAX_NAME or Path(line).is_absolute() or ".." in Path(line).parts:
            raise UserError(f"{path}, line {number}: expected a folder, found {line[:80]!r}.")
    if not lines:
        raise UserError(f"{path}: the list names no scene.")
    return list(dict.fromkeys(line for _, line in lines))


def read_scan_list(path: Path) -> list[str]:
    """Read scan names, one a line; ``#`` begins a comment.

    Raises:
        UserError: The list is unreadable, empty, or a line is no name of a scan.
    """
    lines = _content_lines(path)
    for number, line in lines:
        if not _SCAN_NAME.fullmatch(line):
            raise UserError(
                f"{path}, line {number}: expected a scan such as 'scan1': {line[:80]!r}."
            )
    if not lines:
        raise UserError(f"{path}: the list names no scan.")
    return list(dict.fromkeys(line for _, line in lines))


def find_pair_list(root: Path) -> Path:
    """Return the data folder's own list of neighbouring views, else DTU's."""
    own = root / "Cameras" / "pair.txt"
    return own if own.is_file() else _LISTS / "dtu_pairs.txt"


def read_pairs(path: Path) -> dict[int, list[int]]:
    """Read MVSNet's ``pair.txt``: for each view its neighbours, best first.

    Raises:
        UserError: The list is unreadable or malformed; names the line.
    """
    lines = _content_lines(path)
    pairs: dict[int, list[int]] = {}
    for (id_number, id_line), (number, line) in zip(lines[1::2], lines[2::2], strict=False):
        try:
            view = int(id_line)
        except ValueError as error:
            raise UserError(
                f"{path}, line {id_number}: expected a view: {id_line[:80]!r}."
            ) from error
        try:
            pairs[view] = _parse_neighbours(line.split())
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: expected a count, then as many pairs of view and score: "
                f"{line[:80]!r}."
            ) from error
    if not lines or lines[0][1] != str(len(pairs)) or len(lines) != 1 + 2 * len(pairs):
        raise UserError(f"{path}: the first line must count the views; {len(pairs)} follow it.")
    return pairs


def rank_neighbours(
    views: Sequence[int], centers: Float[Tensor, "view 3"], pairs: Mapping[int, Sequence[int]]
) -> dict[int, list[int]]:
    """Rank for each view all others: first as the pair list has them, then by distance.

    Args:
        views: The views at hand.
        centers: Their camera centres, in the same order.
        pairs: Neighbours, best first; views that are not at hand are passed over.
    """
    by_distance = {
        view: rank_by_distance(view, views, dict(zip(views, centers, strict=True)))
        for view in views
    }
    present = set(views)
    return {
        view: list(
            dict.fromkeys(
                [other for other in pairs.get(view, []) if other in present and other != view]
                + by_distance[view]
            )
        )
        for view in views
    }


def rank_by_distance(
    target: int, views: Sequence[int], centers: Mapping[int, Float[Tensor, " 3"]]
) -> list[int]:
    """Sort views by the L1 distance of their camera centres to the target's, leaving it out."""
    others = [view for view in views if view != target]
    return sorted(others, key=lambda view: (centers[view] - centers[target]).abs().sum().item())


def rank_by_pose(cameras: Cameras, target: int) -> list[int]:
    """Sort all other cameras by how near they stand to one and how alike they look.

    The cost is the distance of the centres, in units of their spread, plus the angle between the
    optical axes in radians: whoever stands beside the target but looks elsewhere sees little of it.

    Args:
        cameras: All views; one batch axis.
        target: Its place in them.
    """
    centers, axes = cameras.centers.double(), cameras.c2w[:, :3, 2].double()
    spread = (centers - centers.mean(0)).norm(dim=-1).mean().clamp_min(1e-12)
    distances = (centers - centers[target]).norm(dim=-1) / spread
    angles = (axes @ axes[target]).clamp(-1, 1).acos()
    order = torch.argsort(distances + angles, stable=True).tolist()
    return [place for place in order if place != target]


def rank_by_common_points(
    positions: Float64[np.ndarray, "point 3"],
    seen: Sequence[Int[np.ndarray, " _"]],
    centers: Float64[np.ndarray, "view 3"],
) -> dict[int, list[int]]:
    """Rank for each view those that see points in common with it, best first.

    Every common point counts by the angle under which the two views see it, as in MVSNet's view
    selection (Yao et al., ECCV 2018, supplement): fully at 5 degrees, less below and above.

    Args:
        positions: Triangulated points.
        seen: For each view the points that it saw.
        centers: Camera centres.
    """
    views = np.repeat(np.arange(len(seen)), [len(points) for points in seen])
    points = np.concatenate([np.zeros(0, np.int64), *seen])
    by_point = np.argsort(points, kind="stable")
    viewers = views[by_point]
    starts = np.searchsorted(points[by_point], np.arange(len(positions) + 1))
    ranked = {}
    for view, own in enumerate(seen):
        counts = starts[own + 1] - starts[own]
        which = np.repeat(own, counts)
        offsets = np.arange(len(which)) - np.repeat(counts.cumsum() - counts, counts)
        others = viewers[np.repeat(starts[own], counts) + offsets]
        scores = np.bincount(
            others,
            _angle_weights(positions[which], centers[view], centers[others]),
            minlength=len(seen),
        )
        scores[view] = 0.0
        order = np.argsort(-scores, kind="stable").tolist()
        ranked[view] = [other for other in order if scores[other] > 0]
    return ranked


def choose_held_out(views: Sequence[int], num_sources: int) -> tuple[list[int], list[int]]:
    """Choose what is rendered and what it may be rendered from, for validation and test.

    MVSNeRF's protocol where all its targets and enough of its pool are there; otherwise the fifth
    of every eight views is a target (of fewer than five views the middle one), the rest the pool.

    Returns:
        Targets and source pool.
    """
    pool = [view for view in PROTOCOL_POOL if view in views]
    if set(PROTOCOL_TARGETS) <= set(views) and len(pool) >= num_sources:
        return list(PROTOCOL_TARGETS), pool
    ordered = sorted(views)
    targets = ordered[min(_HOLD_OUT_EVERY // 2, len(ordered) // 2) :: _HOLD_OUT_EVERY]
    return targets, [view for view in ordered if view not in targets]


def _angle_weights(
    points: Float64[np.ndarray, "point 3"],
    center: Float64[np.ndarray, " 3"],
    others: Float64[np.ndarray, "point 3"],
) -> Float64[np.ndarray, " point"]:
    first, second = center - points, others - points
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines = (first * second).sum(1) / np.maximum(lengths, 1e-300)
    angles = np.rad2deg(np.arccos(cosines.clip(-1, 1)))
    widths = np.where(angles < _BEST_ANGLE, _NARROW, _WIDE)
    return np.exp(-((angles - _BEST_ANGLE) ** 2) / (2 * widths**2))


def _parse_neighbours(words: Sequence[str]) -> list[int]:
    neighbours = [int(word) for word in words[1::2]]
    scores = [float(word) for word in words[2::2]]
    if not len(neighbours) == len(scores) == int(words[0]):
        raise ValueError("count and content differ")
    return neighbours


def _content_lines(path: Path) -> list[tuple[int, str]]:
    """Return the numbered lines that hold more than a comment."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: larger than any list ({_MAX_BYTES} bytes at most).")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the list ({error}).") from error
    lines = enumerate((line.split("#")[0].strip() for line in text.splitlines()), start=1)
    return [(number, line) for number, line in lines if line]
