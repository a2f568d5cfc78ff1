"""Recognising which convention a set of cameras was written in, when it is not the right one.

Every hypothesis is a repair of the cameras as they were read; the one under which matched features
fit best, with the points in front of the cameras, is named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from apps.inspection.two_views import PairFit, fit_pair
from datasets.formats.images import Size
from utils.cameras import Cameras

GOOD_PIXELS = 1.5
"""Median epipolar distance, for an image whose longer side is a thousand pixels, that is fine."""
_MUCH_BETTER = 0.4
"""A repair has to bring the distance down to this share of what it was."""
_CERTAIN = 1 / 3
"""Share of the limit below which no repair is considered."""
_MIN_IN_FRONT = 0.7
_FLIP = (1.0, -1.0, -1.0, 1.0)

GivenCameras = Callable[[Cameras, Size], Cameras]
Writing = Literal["opengl", "llff", "opencv"]


@dataclass(frozen=True)
class Hypothesis:
    """A way in which cameras may be wrong."""

    name: str
    remedy: str
    repair: GivenCameras


@dataclass(frozen=True)
class Evidence:
    """One pair of views with its matches."""

    pixels: Float[Tensor, "2 match 2"]
    cameras: Cameras
    """As they were read; batch axis (view,) of length 2."""


@dataclass(frozen=True)
class Verdict:
    """What the matches say about all cameras together."""

    epipolar: float
    """Median distance in pixels under the cameras as they were read."""
    in_front: float
    """Share of triangulated points in front of both cameras."""
    repaired: Hypothesis | None
    """The hypothesis that explains the matches much better, if the cameras do not."""
    repaired_epipolar: float
    fine: bool


def _flipped(cameras: Cameras, size: Size) -> Cameras:
    return Cameras(cameras.intrinsics, cameras.c2w * cameras.c2w.new_tensor(_FLIP))


def _inverted(cameras: Cameras, size: Size) -> Cameras:
    return Cameras(cameras.intrinsics, cameras.w2c)


def _inverted_and_flipped(cameras: Cameras, size: Size) -> Cameras:
    return _flipped(_inverted(cameras, size), size)


def _first_axes_swapped(cameras: Cameras, size: Size) -> Cameras:
    # OpenGL's [right, up, back] read from [down, right, back] gives [down, -right, -back].
    down, minus_right, forward, center = cameras.c2w.unbind(-1)
    return Cameras(cameras.intrinsics, torch.stack([-minus_right, down, forward, center], -1))


def _opengl_read_as_llff(cameras: Cameras, size: Size) -> Cameras:
    up, right, minus_back, center = cameras.c2w.unbind(-1)
    return Cameras(cameras.intrinsics, torch.stack([right, -up, minus_back, center], -1))


def _opencv_read_as_llff(cameras: Cameras, size: Size) -> Cameras:
    down, right, backwards, center = cameras.c2w.unbind(-1)
    return Cameras(cameras.intrinsics, torch.stack([right, down, -backwards, center], -1))


def _center_swapped(cameras: Cameras, size: Size) -> Cameras:
    intrinsics = cameras.intrinsics.clone()
    intrinsics[..., 0, 2], intrinsics[..., 1, 2] = (
        cameras.intrinsics[..., 1, 2],
        cameras.intrinsics[..., 0, 2],
    )
    return Cameras(intrinsics, cameras.c2w)


def _focal_times(factor: float) -> GivenCameras:
    def repair(cameras: Cameras, size: Size) -> Cameras:
        intrinsics = cameras.intrinsics.clone()
        intrinsics[..., 0, 0] *= factor
        intrinsics[..., 1, 1] *= factor
        return Cameras(intrinsics, cameras.c2w)

    return repair


_INTRINSICS = (
    Hypothesis(
        "a swapped principal point (cx belongs to the width, cy to the height)",
        "swap cx and cy",
        _center_swapped,
    ),
    Hypothesis(
        "focal lengths of images of half the size", "double fl_x and fl_y", _focal_times(2.0)
    ),
    Hypothesis(
        "focal lengths of images of twice the size", "halve fl_x and fl_y", _focal_times(0.5)
    ),
    Hypothesis(
        "focal lengths of images of four times the size",
        "divide fl_x and fl_y by four",
        _focal_times(0.25),
    ),
)
_CAMERA_TO_WORLD = (
    Hypothesis(
        "OpenCV axes where OpenGL's are expected (camera-to-world is right)",
        "negate the second and third column of every matrix",
        _flipped,
    ),
    Hypothesis(
        "world-to-camera matrices where camera-to-world are expected (the axes are right)",
        "invert every matrix",
        _inverted_and_flipped,
    ),
    Hypothesis(
        "OpenCV's world-to-camera matrices where OpenGL's camera-to-world are expected",
        "invert every matrix, then negate its second and third column",
        _inverted,
    ),
    Hypothesis(
        "LLFF's axes (down, right, backwards) where OpenGL's (right, up, backwards) are expected",
        "put the second column first and the negated first column second",
        _first_axes_swapped,
    ),
)
_LLFF = (
    Hypothesis(
        "OpenGL's axes (right, up, backwards) where LLFF's (down, right, backwards) are expected",
        "put the negated second column first and the first column second",
        _opengl_read_as_llff,
    ),
    Hypothesis(
        "OpenCV's axes (right, down, forwards) where LLFF's (down, right, backwards) are expected",
        "swap the first two columns and negate the third",
        _opencv_read_as_llff,
    ),
)
_WORLD_TO_CAMERA = (
    Hypothesis(
        "OpenGL axes where OpenCV's are expected (world-to-camera is right)",
        "negate the second and third row of every matrix",
        _flipped,
    ),
    Hypothesis(
        "camera-to-world matrices where world-to-camera are expected (the axes are right)",
        "invert every matrix",
        _inverted,
    ),
    Hypothesis(
        "OpenGL's camera-to-world matrices where OpenCV's world-to-camera are expected",
        "negate the second and third column of every matrix, then invert it",
        _inverted_and_flipped,
    ),
)
_POSES = {"opengl": _CAMERA_TO_WORLD, "llff": _LLFF, "opencv": _WORLD_TO_CAMERA}
"""By how a format writes its poses: what may have been written instead."""


def judge(pairs: Sequence[Evidence], size: Size, written: Writing = "opengl") -> Verdict:
    """Say whether cameras explain the matches of several pairs, and if not, what would.

    Args:
        pairs: At least one with matches.
        size: Height and width of the images.
        written: How the format writes poses: camera-to-world with OpenGL's or LLFF's axes, or
            world-to-camera with OpenCV's.
    """
    limit = GOOD_PIXELS * max(1.0, max(size) / 1000)
    epipolar, in_front = _score(pairs, lambda cameras, _: cameras, size)
    candidates = _POSES[written] + _INTRINSICS
    scores = [(_score(pairs, hypothesis.repair, size), hypothesis) for hypothesis in candidates]
    likely = [
        (distance, hypothesis)
        for (distance, front), hypothesis in scores
        if front >= _MIN_IN_FRONT and distance <= 3 * limit
    ]
    best = min(likely, key=lambda row: row[0], default=None)
    much_better = best is not None and best[0] <= _MUCH_BETTER * epipolar
    # Wrong focal lengths can come near enough to look right, until the right ones are tried.
    fine = epipolar <= (limit * _CERTAIN if much_better else limit) and in_front >= _MIN_IN_FRONT
    # Cameras that look backwards fit their epipolar lines as well as those that look forwards.
    explains = best is not None and not fine and (much_better or in_front < _MIN_IN_FRONT)
    return Verdict(
        epipolar=epipolar,
        in_front=in_front,
        repaired=best[1] if best is not None and explains else None,
        repaired_epipolar=best[0] if best is not None and explains else epipolar,
        fine=fine,
    )


def _score(pairs: Sequence[Evidence], repair: GivenCameras, size: Size) -> tuple[float, float]:
    fits: list[PairFit] = [fit_pair(pair.pixels, repair(pair.cameras, size)) for pair in pairs]
    distance = torch.cat([fit.epipolar for fit in fits]).median().item()
    shares = torch.tensor([fit.in_front for fit in fits])
    return distance, shares.median().item()
