"""Points triangulated from matches of local features: reference depth where nobody measured any.

With the cameras known a match has to survive the ratio test in both directions, lie on its epipolar
line, in front of both cameras and under an angle that fixes its depth; few false ones do.
"""

from __future__ import annotations

from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datasets.local_features import detect_features, match_features
from datasets.views import Views
from utils.cameras import Cameras, project
from utils.triangulation import halfway_points

MAX_FEATURES = 2000
MAX_REPROJECTION = 1.0
"""Pixels."""
MIN_ANGLE = 3.0
"""Degrees between the two rays: half a pixel then moves the depth by about one percent."""


def triangulate_views(views: Views) -> tuple[Float[Tensor, "_ 3"], ...]:
    """Return for each view the points of the world that it and another view see.

    Args:
        views: One group, without a batch axis, on the CPU. All pairs are matched.
    """
    features = [detect_features(image, MAX_FEATURES) for image in views.images]
    seen: list[list[Tensor]] = [[torch.empty(0, 3)] for _ in features]
    for first, second in combinations(range(len(features)), 2):
        pair = [first, second]
        matches = match_features(features[first], features[second])
        points = triangulate_pair(matches, views.cameras[pair])
        for view in pair:
            seen[view].append(points)
    return tuple(torch.cat(points) for points in seen)


def triangulate_pair(
    pixels: Float[Tensor, "2 match 2"], cameras: Cameras
) -> Float[Tensor, "point 3"]:
    """Return the points halfway between the rays of two views, without the implausible ones."""
    points, angles = halfway_points(pixels, cameras)
    return points[(angles > MIN_ANGLE) & _agrees(points, pixels, cameras)]


def _agrees(
    points: Float[Tensor, "match 3"], pixels: Float[Tensor, "2 match 2"], cameras: Cameras
) -> Bool[Tensor, " match"]:
    projected, depths = project(points, cameras)
    near = (projected - pixels).norm(dim=-1) < MAX_REPROJECTION
    return (near & (depths > 0)).all(0)
