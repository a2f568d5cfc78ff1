"""Local image features, their matches, and triangulation of matches by known cameras.

Features are SIFT's (Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", 2004). A
match has to pass the ratio test in both directions. A triangulated point has to project onto both
of its pixels, lie in front of both cameras and have a large enough triangulation angle.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import cv2
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from datasets.views import Views
from utils.cameras import Cameras, pixel_directions, project, rotate

_MAX_FEATURES = 2000
_MAX_REPROJECTION = 1.0
"""Pixels."""
_MIN_ANGLE = 3.0
"""Degrees between the two rays: half a pixel then moves the depth by about one percent."""
_RATIO = 0.8


@dataclass(frozen=True)
class LocalFeatures:
    """Keypoints of one image with their descriptors."""

    pixels: Float[Tensor, "feature 2"]
    descriptors: Float[Tensor, "feature 128"]


def detect_features(image: Float[Tensor, "3 height width"], max_features: int) -> LocalFeatures:
    """Detect the strongest features of an image, possibly none."""
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    keypoints, descriptors = cv2.SIFT.create(max_features).detectAndCompute(grey, None)
    if descriptors is None:
        return LocalFeatures(torch.empty(0, 2), torch.empty(0, 128))
    # OpenCV has whole numbers at the pixel centres.
    positions = torch.tensor([keypoint.pt for keypoint in keypoints]) + 0.5
    return LocalFeatures(positions, torch.from_numpy(descriptors))


def match_features(first: LocalFeatures, second: LocalFeatures) -> Float[Tensor, "2 match 2"]:
    """Return the pixels of mutual nearest neighbours that pass the ratio test."""
    if min(len(first.pixels), len(second.pixels)) < 2:
        return torch.empty(2, 0, 2)
    distances = torch.cdist(first.descriptors, second.descriptors)
    forward, backward = _nearest_by_ratio(distances), _nearest_by_ratio(distances.T)
    mutual = (forward >= 0) & (backward[forward.clamp_min(0)] == torch.arange(len(forward)))
    return torch.stack([first.pixels[mutual], second.pixels[forward[mutual]]])


def triangulate_views(views: Views) -> tuple[Float[Tensor, "_ 3"], ...]:
    """Triangulate, on the CPU, the matches of all pairs of views.

    Returns the world points that each view shares with any other view.
    """
    features = [detect_features(image, _MAX_FEATURES) for image in views.images]
    by_view: list[list[Tensor]] = [[torch.empty(0, 3)] for _ in features]
    for first, second in combinations(range(len(features)), 2):
        pair = [first, second]
        matches = match_features(features[first], features[second])
        points = triangulate_pair(matches, views.cameras[pair])
        for view in pair:
            by_view[view].append(points)
    return tuple(torch.cat(points) for points in by_view)


def triangulate_pair(
    pixels: Float[Tensor, "2 match 2"], cameras: Cameras, min_angle: float = _MIN_ANGLE
) -> Float[Tensor, "point 3"]:
    """Triangulate the matches of two views and drop the implausible points.

    ``min_angle`` is the least triangulation angle in degrees.
    """
    points, angles = midpoint_triangulation(pixels, cameras)
    projected, depths = project(points, cameras)
    near = (projected - pixels).norm(dim=-1) < _MAX_REPROJECTION
    return points[(angles > min_angle) & (near & (depths > 0)).all(0)]


def midpoint_triangulation(
    pixels: Float[Tensor, "2 match 2"], cameras: Cameras
) -> tuple[Float[Tensor, "match 3"], Float[Tensor, " match"]]:
    """Return the midpoints between the rays of two views, and the rays' angles in degrees.

    Where rays are nearly parallel, the point is finite but meaningless.
    """
    directions = rotate(pixel_directions(pixels, cameras.intrinsics), cameras)
    first, second = torch.nn.functional.normalize(directions, dim=-1)
    baseline = (cameras.centers[1] - cameras.centers[0]).expand_as(first)
    # Solve for the closest points of the two rays.
    cosine = (first * second).sum(-1).clamp(-1, 1)
    sine_squared = (1 - cosine**2).clamp_min(1e-9)
    along_first, along_second = (baseline * first).sum(-1), (baseline * second).sum(-1)
    t_first = (along_first - cosine * along_second) / sine_squared
    t_second = (cosine * along_first - along_second) / sine_squared
    middle = (t_first[:, None] * first + t_second[:, None] * second + baseline) / 2
    return middle + cameras.centers[0], torch.rad2deg(cosine.acos())


def _nearest_by_ratio(distances: Float[Tensor, "query other"]) -> Int64[Tensor, " query"]:
    """Return the nearest neighbour of each query, or -1 if it fails Lowe's ratio test."""
    nearest = distances.topk(2, largest=False)
    distinct = nearest.values[:, 0] < _RATIO * nearest.values[:, 1]
    return torch.where(distinct, nearest.indices[:, 0], -1)
