"""Local features of images, their matches, and the points that these fix once cameras are known.

Features are SIFT's (Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", 2004). A
match has to survive the ratio test in both directions; a triangulated point has to project onto
both of its pixels, lie in front of both cameras and be seen under an angle that fixes its depth.
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

MAX_FEATURES = 2000
MAX_REPROJECTION = 1.0
"""Pixels."""
MIN_ANGLE = 3.0
"""Degrees between the two rays: half a pixel then moves the depth by about one percent."""
_RATIO = 0.8


@dataclass(frozen=True)
class LocalFeatures:
    """The most distinctive places of an image."""

    pixels: Float[Tensor, "feature 2"]
    descriptors: Float[Tensor, "feature 128"]


def detect_features(image: Float[Tensor, "3 height width"], most: int) -> LocalFeatures:
    """Find an image's strongest features, at most so many; there may be none."""
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    keypoints, descriptors = cv2.SIFT.create(most).detectAndCompute(grey, None)
    if descriptors is None:
        return LocalFeatures(torch.empty(0, 2), torch.empty(0, 128))
    # OpenCV puts whole numbers at the pixels' centres.
    places = torch.tensor([keypoint.pt for keypoint in keypoints]) + 0.5
    return LocalFeatures(places, torch.from_numpy(descriptors))


def match_features(first: LocalFeatures, second: LocalFeatures) -> Float[Tensor, "2 match 2"]:
    """Return the pixels of pairs that are each other's nearest, clearly so in both directions."""
    if min(len(first.pixels), len(second.pixels)) < 2:
        return torch.empty(2, 0, 2)
    distances = torch.cdist(first.descriptors, second.descriptors)
    forward, backward = _clearly_nearest(distances), _clearly_nearest(distances.T)
    mutual = (forward >= 0) & (backward[forward.clamp_min(0)] == torch.arange(len(forward)))
    return torch.stack([first.pixels[mutual], second.pixels[forward[mutual]]])


def triangulate_views(views: Views) -> tuple[Float[Tensor, "_ 3"], ...]:
    """Return for each view, on the CPU, the points of the world that it and another view see."""
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
    pixels: Float[Tensor, "2 match 2"], cameras: Cameras, min_angle: float = MIN_ANGLE
) -> Float[Tensor, "point 3"]:
    """Return the points halfway between the rays of two views, without the implausible ones."""
    points, angles = halfway_points(pixels, cameras)
    projected, depths = project(points, cameras)
    near = (projected - pixels).norm(dim=-1) < MAX_REPROJECTION
    return points[(angles > min_angle) & (near & (depths > 0)).all(0)]


def halfway_points(
    pixels: Float[Tensor, "2 match 2"], cameras: Cameras
) -> tuple[Float[Tensor, "match 3"], Float[Tensor, " match"]]:
    """Return the points halfway between the rays of two views, and the rays' angles in degrees.

    Where rays are nearly parallel, the point is finite but meaningless.
    """
    directions = rotate(pixel_directions(pixels, cameras.intrinsics), cameras)
    first, second = torch.nn.functional.normalize(directions, dim=-1)
    baseline = (cameras.centers[1] - cameras.centers[0]).expand_as(first)
    # The points of both rays that are nearest to each other.
    cosine = (first * second).sum(-1).clamp(-1, 1)
    sine_squared = (1 - cosine**2).clamp_min(1e-9)
    along_first, along_second = (baseline * first).sum(-1), (baseline * second).sum(-1)
    far_first = (along_first - cosine * along_second) / sine_squared
    far_second = (cosine * along_first - along_second) / sine_squared
    middle = (far_first[:, None] * first + far_second[:, None] * second + baseline) / 2
    return middle + cameras.centers[0], torch.rad2deg(cosine.acos())


def _clearly_nearest(distances: Float[Tensor, "query other"]) -> Int64[Tensor, " query"]:
    """Return for each query the nearest other, or -1 if the second nearest is about as near."""
    nearest = distances.topk(2, largest=False)
    clear = nearest.values[:, 0] < _RATIO * nearest.values[:, 1]
    return torch.where(clear, nearest.indices[:, 0], -1)
