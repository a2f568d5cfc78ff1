"""Which views go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from utils.cameras import Cameras

Neighbours = Mapping[int, Sequence[int]]
"""For each view the others, most useful first."""

_BEST_ANGLE, _NARROW, _WIDE = 5.0, 1.0, 10.0
"""Degrees: the triangulation angle that counts fully, and how fast smaller and larger ones fade."""


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
