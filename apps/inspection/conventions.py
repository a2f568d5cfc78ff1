"""Recognising the wrong convention that a set of cameras was written in, by matched features.

Every hypothesis is a repair of the cameras as they were read; the one under which matched features
fit best, with the points in front of the cameras, is named.
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
_MAX_DISTANCE = 1.5
"""Pixels from the epipolar line of the matrix that is fitted to the matches themselves."""
_CONFIDENCE = 0.999
_MIN_MATCHES = 12
_NO_LINE = 1e4
"""Pixels that stand for the distance from a line that there is not."""
_MIN_ANGLE = 1.0
"""Degrees between two rays below which the depth of their point is unreliable."""
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


_SWAPPED = "a swapped principal point (cx belongs to the width, cy to the height)"
_FOCAL = (("half", "double", 2.0), ("twice", "halve", 0.5), ("four times", "quarter", 0.25))
_INTRINSICS = (
    Hypothesis(_SWAPPED, "swap cx and cy", center_swapped=True),
    *(
        Hypothesis(f"focal lengths of images of {size} the size", f"{do} fl_x and fl_y", focal=by)
        for size, do, by in _FOCAL
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
    "opencv_c2w": (
        (
            "OpenGL axes where OpenCV's are expected (camera-to-world is right)",
            *("negate the second and third column of every matrix", False, _FLIP),
        ),
        (
            "world-to-camera matrices where camera-to-world are expected (the axes are right)",
            *("invert every matrix", True, _SAME),
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

    ``written`` is how the format writes poses: camera-to-world with OpenGL's or LLFF's axes, or
    world-to-camera with OpenCV's.
    """
    limit = GOOD_PIXELS * max(1.0, max(size) / 1000)
    epipolar, in_front = _score(pairs, Hypothesis("", ""))
    repairs = [*(Hypothesis(*row) for row in _POSES[written]), *_INTRINSICS]
    scores = [(*_score(pairs, repair), repair) for repair in repairs]
    likely = [row for row in scores if row[1] >= _MIN_IN_FRONT and row[0] <= limit]
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


@dataclass(frozen=True)
class MatchedPair:
    """One pair of views with its matches."""

    pixels: Float[Tensor, "2 match 2"]
    cameras: Cameras
    """As the files have them, in double precision; batch axis (view,) of length 2."""


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


def match_pair(images: Float[Tensor, "2 3 height width"]) -> Float[Tensor, "2 match 2"]:
    """Return the pixels of matches in both images; none if there are too few.

    They are filtered by the fundamental matrix that most of them agree on (Hartley and Zisserman,
    Multiple View Geometry, chapter 11), without the cameras: so the matches are those of some pair
    of pinhole cameras, and whether it is the given pair can be asked.
    """
    matches = match_features(*(detect_features(image, _MAX_FEATURES) for image in images))
    if matches.shape[1] < _MIN_MATCHES:
        return torch.empty(2, 0, 2)
    cv2.setRNGSeed(0)
    first, second = matches.numpy()
    _, kept = cv2.findFundamentalMat(first, second, cv2.FM_RANSAC, _MAX_DISTANCE, _CONFIDENCE, 2000)
    if kept is None or kept.sum() < _MIN_MATCHES:
        return torch.empty(2, 0, 2)
    return matches[:, torch.from_numpy(kept.ravel() > 0)]


def fit_pair(pixels: Float[Tensor, "2 match 2"], cameras: Cameras) -> PairFit:
    """Compare matches with cameras; both batch axes are (view,) of length 2."""
    c2w, pixels = cameras.c2w.double().clone(), pixels.double()
    # Coordinates of maps are too large to triangulate in, and only the pair matters.
    c2w[:, :3, 3] -= c2w[:1, :3, 3].clone()
    cameras = Cameras(cameras.intrinsics.double(), c2w)
    points, angles = midpoint_triangulation(pixels, cameras)
    depths = to_camera(points.expand(2, -1, -1), cameras)[..., 2]
    projections = cameras.intrinsics @ cameras.w2c[:, :3]
    fundamental = epipolar.fundamental_from_projections(projections[:1], projections[1:])
    both = (pixels[:1], pixels[1:], fundamental)
    distances = epipolar.left_to_right_epipolar_distance(*both)[0]
    distances = (distances + epipolar.right_to_left_epipolar_distance(*both)[0]) / 2
    # Two cameras in one place have no epipolar lines.
    distances = distances.nan_to_num(_NO_LINE, _NO_LINE).clamp(max=_NO_LINE)
    return PairFit(distances.float(), depths.float(), angles > _MIN_ANGLE)
