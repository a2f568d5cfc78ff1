"""Detection of wrong camera conventions from matched features.

Each hypothesis is a correction of the cameras. The one with the smallest epipolar distances, and
with triangulated points in front of the cameras, is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import torch
from jaxtyping import Bool, Float
from kornia.geometry import epipolar
from torch import Tensor

from datasets.formats.format_table import PoseConvention
from datasets.formats.options import Size
from datasets.matching import detect_features, match_features, midpoint_triangulation
from utils.cameras import Cameras, to_camera

_MAX_FEATURES = 2500
_MIN_MATCHES = 12
_MAX_EPIPOLAR = 1e4
"""Epipolar distance, in pixels, of a degenerate pair of cameras."""
_MIN_ANGLE = 1.0
"""Angle between two rays, in degrees, below which the triangulated depth is unreliable."""
_GOOD_PIXELS = 1.5
"""Largest median epipolar distance of correct cameras, in pixels per 1000 pixels of image side."""
_MUCH_BETTER = 0.4
"""A correction must reduce the epipolar distance to this fraction."""
_CERTAIN = 1 / 3
"""Fraction of the limit below which cameras are accepted even if a correction fits better."""
_MIN_IN_FRONT = 0.7

Axes = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]
_IDENTITY: Axes = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_FLIP: Axes = ((1, 0, 0), (0, -1, 0), (0, 0, -1))
"""Conversion between OpenCV and OpenGL axes."""


@dataclass(frozen=True)
class Hypothesis:
    """A probable mistake in a file of cameras, and its correction."""

    name: str
    remedy: str
    inverted: bool = False
    """Whether the poses must be inverted."""
    axes: Axes = _IDENTITY
    """Matrix by which the rotation must then be multiplied from the right."""
    focal: float = 1.0
    """Factor by which the focal lengths must be multiplied."""
    center_swapped: bool = False

    def correct(self, cameras: Cameras) -> Cameras:
        """Return the corrected cameras."""
        intrinsics = cameras.intrinsics.clone()
        intrinsics[..., :2, :2] *= self.focal
        if self.center_swapped:
            intrinsics[..., :2, 2] = intrinsics[..., :2, 2].flip(-1)
        c2w = (cameras.w2c if self.inverted else cameras.c2w).clone()
        c2w[..., :3, :3] = c2w[..., :3, :3] @ c2w.new_tensor(self.axes)
        return Cameras(intrinsics, c2w)


@dataclass(frozen=True)
class CameraCheck:
    """Consistency of all cameras with the matches."""

    epipolar: float
    """Median epipolar distance in pixels."""
    in_front: float
    """Fraction of triangulated points in front of both cameras."""
    consistent: bool
    hypothesis: Hypothesis | None = None
    """The mistake that explains the matches, if the cameras are not consistent with them."""
    corrected_epipolar: float = 0.0
    """Median epipolar distance after its correction, in pixels."""


_UNCHANGED = Hypothesis("no mistake", "")
_INTRINSICS = (
    Hypothesis("a swapped principal point", "swap cx and cy", center_swapped=True),
    Hypothesis("focal lengths of images of half the size", "double fl_x and fl_y", focal=2.0),
    Hypothesis("focal lengths of images of twice the size", "halve fl_x and fl_y", focal=0.5),
    Hypothesis("focal lengths of images of four times the size", "quarter fl_x, fl_y", focal=0.25),
)
_NEGATE, _INVERT = "negate the second and third column of every matrix", "invert every matrix"
_C2W, _W2C = "camera-to-world matrices", "world-to-camera matrices"
_POSES: dict[PoseConvention, tuple[Hypothesis, ...]] = {
    "opengl": (
        Hypothesis("OpenCV axes instead of OpenGL's", _NEGATE, False, _FLIP),
        Hypothesis(f"{_W2C} instead of {_C2W}", _INVERT, True, _FLIP),
        Hypothesis(
            f"OpenCV's {_W2C} instead of OpenGL's {_C2W}",
            f"{_INVERT}, then negate its second and third column",
            inverted=True,
        ),
        Hypothesis(
            "LLFF's axes (down, right, backwards) instead of OpenGL's (right, up, backwards)",
            "put the second column first and the negated first column second",
            axes=((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
        ),
    ),
    "llff": (
        Hypothesis(
            "OpenGL's axes (right, up, backwards) instead of LLFF's (down, right, backwards)",
            "put the negated second column first and the first column second",
            axes=((0, -1, 0), (1, 0, 0), (0, 0, 1)),
        ),
        Hypothesis(
            "OpenCV's axes (right, down, forwards) instead of LLFF's (down, right, backwards)",
            "swap the first two columns and negate the third",
            axes=((0, 1, 0), (1, 0, 0), (0, 0, -1)),
        ),
    ),
    "opencv_c2w": (
        Hypothesis("OpenGL axes instead of OpenCV's", _NEGATE, False, _FLIP),
        Hypothesis(f"{_W2C} instead of {_C2W}", _INVERT, True),
    ),
    "opencv": (
        Hypothesis(
            "OpenGL axes instead of OpenCV's",
            "negate the second and third row of every matrix",
            axes=_FLIP,
        ),
        Hypothesis(f"{_C2W} instead of {_W2C}", _INVERT, True),
        Hypothesis(
            f"OpenGL's {_C2W} instead of OpenCV's {_W2C}", f"{_NEGATE}, then invert it", True, _FLIP
        ),
    ),
}
"""Probable mistakes by the convention in which a format stores poses."""


def check_cameras(
    pairs: Sequence[MatchedPair], size: Size, written: PoseConvention = "opengl"
) -> CameraCheck:
    """Check cameras against matches, and find the probable mistake if they disagree.

    ``written`` is the convention in which the format stores poses.
    """
    limit = _GOOD_PIXELS * max(1.0, max(size) / 1000)
    epipolar, in_front = _score(pairs, _UNCHANGED)
    scores = [(*_score(pairs, each), each) for each in (*_POSES[written], *_INTRINSICS)]
    plausible = [row for row in scores if row[1] >= _MIN_IN_FRONT and row[0] <= limit]
    best = min(plausible, key=lambda row: row[0], default=None)
    much_better = best is not None and best[0] <= _MUCH_BETTER * epipolar
    # Wrong focal lengths can pass the limit, but a correction then fits much better.
    consistent = epipolar <= (limit * _CERTAIN if much_better else limit)
    consistent = consistent and in_front >= _MIN_IN_FRONT
    # Cameras that look backwards have the same epipolar lines as the correct ones.
    explained = not consistent and (much_better or in_front < _MIN_IN_FRONT)
    if best is None or not explained:
        return CameraCheck(epipolar, in_front, consistent)
    return CameraCheck(epipolar, in_front, consistent, best[2], best[0])


def _score(pairs: Sequence[MatchedPair], hypothesis: Hypothesis) -> tuple[float, float]:
    """Return the median epipolar distance, and the median fraction of points in front."""
    fits = [fit_pair(pair.pixels, hypothesis.correct(pair.cameras)) for pair in pairs]
    distance = torch.cat([fit.epipolar for fit in fits]).median().item()
    return distance, torch.tensor([fit.in_front for fit in fits]).median().item()


@dataclass(frozen=True)
class MatchedPair:
    """A pair of views with matched pixels."""

    pixels: Float[Tensor, "2 match 2"]
    cameras: Cameras
    """In file coordinates and double precision; batch axis (view,) of length 2."""


@dataclass(frozen=True)
class PairFit:
    """Consistency of one pair of cameras with its matches."""

    epipolar: Float[Tensor, " match"]
    """Distance of each match from its epipolar line in pixels, the mean over both images."""
    depths: Float[Tensor, "2 match"]
    """Triangulated z-depth in both cameras; negative behind a camera."""
    reliable: Bool[Tensor, " match"]
    """Whether the angle between the rays is large enough for a reliable depth."""

    @property
    def in_front(self) -> float:
        """Fraction of reliable points in front of both cameras; 1 if there are none."""
        in_front = (self.depths > 0).all(0)[self.reliable]
        return in_front.float().mean().item() if len(in_front) else 1.0


def match_pair(images: Float[Tensor, "2 3 height width"]) -> Float[Tensor, "2 match 2"]:
    """Match features of two images; return no matches if there are too few.

    Outliers are removed by a fundamental matrix fitted with RANSAC (Hartley and Zisserman, Multiple
    View Geometry, chapter 11). The cameras are not used, so the matches can test them.
    """
    matches = match_features(*(detect_features(image, _MAX_FEATURES) for image in images))
    if matches.shape[1] < _MIN_MATCHES:
        return torch.empty(2, 0, 2)
    cv2.setRNGSeed(0)
    first, second = matches.numpy()
    # An inlier is at most 1.5 pixels from its epipolar line.
    _, inliers = cv2.findFundamentalMat(first, second, cv2.FM_RANSAC, 1.5, 0.999, 2000)
    if inliers is None or inliers.sum() < _MIN_MATCHES:
        return torch.empty(2, 0, 2)
    return matches[:, torch.from_numpy(inliers.ravel() > 0)]


def fit_pair(pixels: Float[Tensor, "2 match 2"], cameras: Cameras) -> PairFit:
    """Compute epipolar distances and triangulated depths of matches."""
    c2w, pixels = cameras.c2w.double().clone(), pixels.double()
    # Move the origin to the first camera: map coordinates are too large for triangulation.
    c2w[:, :3, 3] -= c2w[:1, :3, 3].clone()
    cameras = Cameras(cameras.intrinsics.double(), c2w)
    points, angles = midpoint_triangulation(pixels, cameras)
    depths = to_camera(points.expand(2, -1, -1), cameras)[..., 2]
    projections = cameras.intrinsics @ cameras.w2c[:, :3]
    fundamental = epipolar.fundamental_from_projections(projections[:1], projections[1:])
    both = (pixels[:1], pixels[1:], fundamental)
    distances = epipolar.left_to_right_epipolar_distance(*both)[0]
    distances = (distances + epipolar.right_to_left_epipolar_distance(*both)[0]) / 2
    # Two cameras at the same position have no epipolar lines.
    distances = distances.nan_to_num(_MAX_EPIPOLAR, _MAX_EPIPOLAR).clamp(max=_MAX_EPIPOLAR)
    return PairFit(distances.float(), depths.float(), angles > _MIN_ANGLE)
