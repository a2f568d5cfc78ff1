"""Points triangulated from matches of local features: reference depth where nobody measured any.

Features are SIFT's (Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", 2004). With
the cameras known a match has to survive the ratio test in both directions, lie on its epipolar
line, in front of both cameras and under an angle that fixes its depth; few false ones do.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datasets.views import Views
from utils.cameras import Cameras, pixel_directions, project, rotate

MAX_FEATURES = 2000
RATIO = 0.8
MAX_REPROJECTION = 1.0
"""Pixels."""
MIN_ANGLE = 3.0
"""Degrees between the two rays: half a pixel then moves the depth by about one percent."""


@dataclass(frozen=True)
class _Features:
    pixels: Float[Tensor, "feature 2"]
    descriptors: Float[np.ndarray, "feature 128"]


def triangulate_views(views: Views) -> tuple[Float[Tensor, "_ 3"], ...]:
    """Return for each view the points of the world that it and another view see.

    Args:
        views: One group, without a batch axis, on the CPU. All pairs are matched.
    """
    features = [_detect(image) for image in views.images]
    seen: list[list[Tensor]] = [[torch.empty(0, 3)] for _ in features]
    for first, second in combinations(range(len(features)), 2):
        pair = [first, second]
        matches = _match(features[first], features[second])
        points = triangulate_pair(matches, views.cameras[pair])
        for view in pair:
            seen[view].append(points)
    return tuple(torch.cat(points) for points in seen)


def triangulate_pair(
    pixels: Float[Tensor, "2 match 2"], cameras: Cameras
) -> Float[Tensor, "point 3"]:
    """Return the points halfway between the rays of two views, without the implausible ones."""
    directions = rotate(pixel_directions(pixels, cameras.intrinsics), cameras)
    first, second = torch.nn.functional.normalize(directions, dim=-1)
    baseline = (cameras.centers[1] - cameras.centers[0]).expand_as(first)
    # The points of both rays that are nearest to each other.
    cosine = (first * second).sum(-1)
    sine_squared = (1 - cosine**2).clamp_min(1e-9)
    along_first = (baseline * first).sum(-1)
    along_second = (baseline * second).sum(-1)
    far_first = (along_first - cosine * along_second) / sine_squared
    far_second = (cosine * along_first - along_second) / sine_squared
    midpoint = (far_first[:, None] * first + far_second[:, None] * second + baseline) / 2
    points = midpoint + cameras.centers[0]
    wide = torch.rad2deg(cosine.clamp(-1, 1).acos()) > MIN_ANGLE
    return points[wide & _agrees(points, pixels, cameras)]


def _agrees(
    points: Float[Tensor, "match 3"], pixels: Float[Tensor, "2 match 2"], cameras: Cameras
) -> Bool[Tensor, " match"]:
    projected, depths = project(points, cameras)
    near = (projected - pixels).norm(dim=-1) < MAX_REPROJECTION
    return (near & (depths > 0)).all(0)


def _detect(image: Float[Tensor, "3 height width"]) -> _Features:
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    keypoints, descriptors = cv2.SIFT.create(MAX_FEATURES).detectAndCompute(grey, None)
    if descriptors is None:
        return _Features(torch.empty(0, 2), np.empty((0, 128), np.float32))
    # OpenCV puts whole numbers at the pixels' centres.
    places = torch.tensor([keypoint.pt for keypoint in keypoints]) + 0.5
    return _Features(places, descriptors)


def _match(first: _Features, second: _Features) -> Float[Tensor, "2 match 2"]:
    forward = _ratio_test(first.descriptors, second.descriptors)
    backward = _ratio_test(second.descriptors, first.descriptors)
    pairs = [(a, b) for a, b in forward.items() if backward.get(b) == a]
    indices = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return torch.stack([first.pixels[indices[:, 0]], second.pixels[indices[:, 1]]])


def _ratio_test(
    queries: Float[np.ndarray, "query 128"], others: Float[np.ndarray, "other 128"]
) -> dict[int, int]:
    if len(queries) == 0 or len(others) < 2:
        return {}
    candidates = cv2.BFMatcher(cv2.NORM_L2).knnMatch(queries, others, k=2)
    return {
        best.queryIdx: best.trainIdx
        for best, runner_up in candidates
        if best.distance < RATIO * runner_up.distance
    }
