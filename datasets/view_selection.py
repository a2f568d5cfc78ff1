"""Rankings of the views of a scene by how useful they are as sources for a target view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from scipy.sparse import csr_array

from utils.cameras import Cameras

_BEST_ANGLE, _NARROW, _WIDE = 5.0, 1.0, 10.0
"""Degrees: the preferred triangulation angle, and the deviations of the Gaussian weight below and
above it."""
ItemT = TypeVar("ItemT")


def spread_evenly(items: Sequence[ItemT], count: int) -> list[ItemT]:
    """Return at most ``count`` items at even distances."""
    if len(items) <= count:
        return list(items)
    return [items[(2 * n + 1) * len(items) // (2 * count)] for n in range(count)]


def rank_by_distance(
    target: int, views: Sequence[int], centers: Mapping[int, Float[torch.Tensor, " 3"]]
) -> list[int]:
    """Sort the other views by the L1 distance of their camera centres to the target's."""
    others = [view for view in views if view != target]
    return sorted(others, key=lambda view: (centers[view] - centers[target]).abs().sum().item())


def rank_by_pose(cameras: Cameras, target: int) -> list[int]:
    """Sort the indices of all other cameras by the similarity of their poses to the target's.

    The cost is the distance of the centres, in units of their spread, plus the angle between the
    optical axes in radians.
    """
    centers, axes = cameras.centers.double(), cameras.c2w[:, :3, 2].double()
    spread = (centers - centers.mean(0)).norm(dim=-1).mean().clamp_min(1e-12)
    distances = (centers - centers[target]).norm(dim=-1) / spread
    angles = (axes @ axes[target]).clamp(-1, 1).acos()
    order = torch.argsort(distances + angles, stable=True).tolist()
    return [index for index in order if index != target]


def angle_weights(degrees: Float64[np.ndarray, "*batch"]) -> Float64[np.ndarray, "*batch"]:
    """Return MVSNet's weights of triangulation angles: 1 at 5 degrees, less below and above."""
    widths = np.where(degrees < _BEST_ANGLE, _NARROW, _WIDE)
    return np.exp(-((degrees - _BEST_ANGLE) ** 2) / (2 * widths**2))


def rank_by_common_points(
    positions: Float64[np.ndarray, "point 3"],
    visible: Sequence[Int[np.ndarray, " _"]],
    centers: Float64[np.ndarray, "view 3"],
) -> dict[int, list[int]]:
    """Rank for each view the views that share points with it, best first.

    A common point counts by the weight of its triangulation angle, as in MVSNet's view selection
    (Yao et al., ECCV 2018, supplement). ``visible`` holds the indices of each view's points.
    """
    views = np.repeat(np.arange(len(visible)), [len(points) for points in visible])
    points = np.concatenate([np.zeros(0, np.int64), *visible])
    shape = len(positions), len(visible)
    visibility = csr_array((np.ones(len(points), np.bool_), (points, views)), shape=shape)
    ranked = {}
    for view, own_points in enumerate(visible):
        rows, others = visibility[own_points].tocoo().coords
        weights = _point_weights(positions[own_points[rows]], centers[view], centers[others])
        scores = np.bincount(others, weights, minlength=len(visible))
        scores[view] = 0.0
        order = np.argsort(-scores, kind="stable").tolist()
        ranked[view] = [other for other in order if scores[other] > 0]
    return ranked


def _point_weights(
    points: Float64[np.ndarray, "point 3"],
    center: Float64[np.ndarray, " 3"],
    others: Float64[np.ndarray, "point 3"],
) -> Float64[np.ndarray, " point"]:
    first, second = center - points, others - points
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines = (first * second).sum(1) / np.maximum(lengths, 1e-300)
    return angle_weights(np.rad2deg(np.arccos(cosines.clip(-1, 1))))
