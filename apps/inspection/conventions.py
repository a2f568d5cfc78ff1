"""Recognising which convention a set of cameras was written in, when it is not the right one.

Every hypothesis is a repair of the cameras as they were read; the one under which matched features
fit best, with the points in front of the cameras, is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from apps.inspection.matches import MatchedPair, fit_pair
from datasets.formats.options import Size
from datasets.formats.registry import PoseConvention
from utils.cameras import Cameras

GOOD_PIXELS = 1.5
"""Median epipolar distance, for an image whose longer side is a thousand pixels, that is fine."""
_MUCH_BETTER = 0.4
"""A repair has to bring the distance down to this share of what it was."""
_CERTAIN = 1 / 3
"""Share of the limit below which no repair is considered."""
_MIN_IN_FRONT = 0.7

Axes = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]
_SAME: Axes = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_FLIP: Axes = ((1, 0, 0), (0, -1, 0), (0, 0, -1))
"""Between OpenCV's and OpenGL's axes."""


@dataclass(frozen=True)
class Hypothesis:
    """A way in which cameras may be wrong, with what undoes it."""

    name: str
    remedy: str
    inverted: bool = False
    """Poses are inverted first."""
    axes: Axes = _SAME
    """Then multiplied to the rotation from the right."""
    focal: float = 1.0
    """Factor on the focal lengths."""
    center_swapped: bool = False

    def repair(self, cameras: Cameras) -> Cameras:
        """Return the cameras as they would be right."""
        intrinsics = cameras.intrinsics.clone()
        intrinsics[..., :2, :2] *= self.focal
        if self.center_swapped:
            intrinsics[..., :2, 2] = intrinsics[..., :2, 2].flip(-1)
        c2w = (cameras.w2c if self.inverted else cameras.c2w).clone()
        c2w[..., :3, :3] = c2w[..., :3, :3] @ c2w.new_tensor(self.axes)
        return Cameras(intrinsics, c2w)


@dataclass(frozen=True)
class Verdict:
    """What the matches say about all cameras together."""

    epipolar: float
    """Median distance in pixels under the cameras as they were read."""
    in_front: float
    """Share of triangulated points in front of both cameras."""
    fine: bool
    repaired: Hypothesis | None = None
    """The hypothesis that explains the matches much better, if the cameras do not."""
    repaired_epipolar: float = 0.0


_INTRINSICS = (
    Hypothesis(
        *(
            "a swapped principal point (cx belongs to the width, cy to the height)",
            "swap cx and cy",
        ),
        center_swapped=True,
    ),
    Hypothesis("focal lengths of images of half the size", "double fl_x and fl_y", focal=2.0),
    Hypothesis("focal lengths of images of twice the size", "halve fl_x and fl_y", focal=0.5),
    Hypothesis(
        *("focal lengths of images of four times the size", "divide fl_x and fl_y by four"),
        focal=0.25,
    ),
)
_GL, _LLFF = "OpenGL's axes (right, up, backwards)", "LLFF's axes (down, right, backwards)"
_POSES: dict[PoseConvention, tuple[tuple[str, str, bool, Axes], ...]] = {
    "opengl": (
        (
            "OpenCV axes where OpenGL's are expected (camera-to-world is right)",
            *("negate the second and third column of every matrix", False, _FLIP),
        ),
        (
            "world-to-camera matrices where camera-to-world are expected (the axes are right)",
            *("invert every matrix", True, _FLIP),
        ),
        (
            "OpenCV's world-to-camera matrices where OpenGL's camera-to-world are expected",
            *("invert every matrix, then negate its second and third column", True, _SAME),
        ),
        (
            f"{_LLFF} where {_GL} are expected",
            "put the second column first and the negated first column second",
            *(False, ((0, 1, 0), (-1, 0, 0), (0, 0, 1))),
        ),
    ),
    "llff": (
        (
            f"{_GL} where {_LLFF} are expected",
            "put the negated second column first and the first column second",
            *(False, ((0, -1, 0), (1, 0, 0), (0, 0, 1))),
        ),
        (
            f"OpenCV's axes (right, down, forwards) where {_LLFF} are expected",
            "swap the first two columns and negate the third",
            *(False, ((0, 1, 0), (1, 0, 0), (0, 0, -1))),
        ),
    ),
    "opencv": (
        (
            "OpenGL axes where OpenCV's are expected (world-to-camera is right)",
            *("negate the second and third row of every matrix", False, _FLIP),
        ),
        (
            "camera-to-world matrices where world-to-camera are expected (the axes are right)",
            *("invert every matrix", True, _SAME),
        ),
        (
            "OpenGL's camera-to-world matrices where OpenCV's world-to-camera are expected",
            "negate the second and third column of every matrix, then invert it",
            *(True, _FLIP),
        ),
    ),
}
"""By how a format writes its poses what may have been written instead, as ``Hypothesis`` has it."""


def judge(pairs: Sequence[MatchedPair], size: Size, written: PoseConvention = "opengl") -> Verdict:
    """Say whether cameras explain the matches of several pairs, and if not, what would.

    Args:
        pairs: At least one with matches.
        size: Height and width of the images.
        written: How the format writes poses: camera-to-world with OpenGL's or LLFF's axes, or
            world-to-camera with OpenCV's.
    """
    limit = GOOD_PIXELS * max(1.0, max(size) / 1000)
    epipolar, in_front = _score(pairs, Hypothesis("", ""))
    repairs = [*(Hypothesis(*row) for row in _POSES[written]), *_INTRINSICS]
    scores = [(*_score(pairs, repair), repair) for repair in repairs]
    likely = [row for row in scores if row[1] >= _MIN_IN_FRONT and row[0] <= 3 * limit]
    best = min(likely, key=lambda row: row[0], default=None)
    much_better = best is not None and best[0] <= _MUCH_BETTER * epipolar
    # Wrong focal lengths can come near enough to look right, until the right ones are tried.
    fine = epipolar <= (limit * _CERTAIN if much_better else limit) and in_front >= _MIN_IN_FRONT
    # Cameras that look backwards fit their epipolar lines as well as those that look forwards.
    explains = best is not None and not fine and (much_better or in_front < _MIN_IN_FRONT)
    if best is None or not explains:
        return Verdict(epipolar, in_front, fine)
    return Verdict(epipolar, in_front, fine, best[2], best[0])


def _score(pairs: Sequence[MatchedPair], hypothesis: Hypothesis) -> tuple[float, float]:
    """Return the median epipolar distance, and the median share of points in front."""
    fits = [fit_pair(pair.pixels, hypothesis.repair(pair.cameras)) for pair in pairs]
    distance = torch.cat([fit.epipolar for fit in fits]).median().item()
    return distance, torch.tensor([fit.in_front for fit in fits]).median().item()
