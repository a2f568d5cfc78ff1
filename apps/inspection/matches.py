"""Matched features of two views, and how well a pair of cameras explains them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import torch
from jaxtyping import Bool, Float
from kornia.geometry import epipolar
from torch import Tensor

from datasets.matching import detect_features, halfway_points, match_features
from utils.cameras import Cameras, to_camera

_MAX_FEATURES = 2500
_MAX_DISTANCE = 1.5
"""Pixels from the epipolar line of the matrix that is fitted to the matches themselves."""
_CONFIDENCE = 0.999
_MIN_MATCHES = 12
_MIN_ANGLE = 1.0
"""Degrees between two rays below which the depth of their point is unreliable."""


@dataclass(frozen=True)
class MatchedPair:
    """One pair of views with its matches."""

    pixels: Float[Tensor, "2 match 2"]
    cameras: Cameras
    """As they were read; batch axis (view,) of length 2."""


@dataclass(frozen=True)
class PairFit:
    """How well a pair of cameras explains matches."""

    epipolar: Float[Tensor, " match"]
    """Pixels between each match and its epipolar line, the mean of both images."""
    depths: Float[Tensor, "2 match"]
    """Triangulated z-depth in both cameras; negative behind a camera."""
    reliable: Bool[Tensor, " match"]
    """Where the rays meet at an angle that fixes the depth."""

    @property
    def in_front(self) -> float:
        """Share of the reliable points that lie in front of both cameras; 1 if there is none."""
        front = (self.depths > 0).all(0)[self.reliable]
        return front.float().mean().item() if len(front) else 1.0


def match_pair(
    images: Float[Tensor, "2 3 height width"], seed: int = 0
) -> Float[Tensor, "2 match 2"]:
    """Return the pixels of matches in both images; none if there are too few.

    They are filtered by the fundamental matrix that most of them agree on (Hartley and Zisserman,
    Multiple View Geometry, chapter 11), without the cameras: so the matches are those of some pair
    of pinhole cameras, and whether it is the given pair can be asked.
    """
    matches = match_features(*(detect_features(image, _MAX_FEATURES) for image in images))
    if matches.shape[1] < _MIN_MATCHES:
        return torch.empty(2, 0, 2)
    cv2.setRNGSeed(seed)
    first, second = matches.numpy()
    _, kept = cv2.findFundamentalMat(first, second, cv2.FM_RANSAC, _MAX_DISTANCE, _CONFIDENCE, 2000)
    if kept is None or kept.sum() < _MIN_MATCHES:
        return torch.empty(2, 0, 2)
    return matches[:, torch.from_numpy(kept.ravel() > 0)]


def fit_pair(pixels: Float[Tensor, "2 match 2"], cameras: Cameras) -> PairFit:
    """Compare matches with cameras; both batch axes are (view,) of length 2."""
    cameras = Cameras(cameras.intrinsics.double(), cameras.c2w.double())
    pixels = pixels.double()
    points, angles = halfway_points(pixels, cameras)
    depths = to_camera(points.expand(2, -1, -1), cameras)[..., 2]
    projections = cameras.intrinsics @ cameras.w2c[:, :3]
    fundamental = epipolar.fundamental_from_projections(projections[:1], projections[1:])
    distances = [
        measure(pixels[:1], pixels[1:], fundamental)[0]
        for measure in (
            epipolar.left_to_right_epipolar_distance,
            epipolar.right_to_left_epipolar_distance,
        )
    ]
    return PairFit(torch.stack(distances).mean(0).float(), depths.float(), angles > _MIN_ANGLE)
