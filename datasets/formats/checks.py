"""What every reader asks of cameras and depth ranges before it uses them."""

from __future__ import annotations

import logging
import reprlib
import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from datasets.formats.options import Size
from utils.camera_rig import nearest_point_to_axes
from utils.cameras import Cameras
from utils.errors import UserError

ARRAY_ERRORS = (
    *(OSError, ValueError, TypeError, LookupError, OverflowError, EOFError, SyntaxError),
    *(MemoryError, tokenize.TokenError),
)
"""What NumPy raises on damaged ``.npy`` files, whose headers are Python literals."""

_MAX_DEVIATION = 1e-3
_MIN_SCALE = 1e-6
"""Scales of rotations below which nothing is left of them."""
_MIN_FOCAL, _MAX_FOCAL = 0.05, 100.0
"""Focal lengths, in image sides, beyond which a file cannot be right."""
MAX_CENTER_DEVIATION = 0.25
"""How far, in image sides, a principal point may lie from the centre of its image."""
_MAX_ROUNDING = 2.0
"""Pixels by which the sides of a shrunk photo may be rounded, together."""
_NEAR_OF_FOCUS, _FAR_OF_FOCUS = 0.3, 2.5
_MIN_SPREAD = 1e-3
"""Squared sine of the spread of viewing directions (2 degrees) below which they are parallel."""
_MIN_DEPTH_RATIO = 1e-3
"""Smallest ratio of nearest to farthest depth of the common point; below it there is none."""

_LOG = logging.getLogger(__name__)


def finite_array(
    values: object, shape: tuple[int, ...] | None, source: Path | str
) -> Float64[np.ndarray, "*shape"]:
    """Return finite numbers of a shape, if one is wanted; ``source`` begins error messages."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{source}: expected numbers, found {reprlib.repr(values)}.") from error
    if not np.isfinite(array).all() or (shape is not None and array.shape != shape):
        wanted = "x".join(map(str, shape or array.shape))
        raise UserError(
            f"{source}: expected {wanted} finite numbers, found {reprlib.repr(values)}."
        )
    return array


def rigid_c2w(matrix: Float64[Tensor, "3 4"], source: str) -> Float64[Tensor, "4 4"]:
    """Complete a pose, without rounding in its rotation; ``source`` begins error messages."""
    return rigid_poses(matrix[None], [source])[0]


def rigid_poses(
    matrices: Float64[Tensor, "pose 3 4"], sources: Sequence[str]
) -> Float64[Tensor, "pose 4 4"]:
    """Complete many poses as ``rigid_c2w`` does one.

    A scale of the rotation alone, such as that of an object that holds the camera, says nothing
    about where the camera stands and looks, and is left out.
    """
    scales = torch.linalg.det(matrices[..., :3]).abs().clamp_min(_MIN_SCALE**3).pow(1 / 3)
    scaled = (scales - 1).abs() > _MAX_DEVIATION
    rotations = matrices[..., :3] / torch.where(scaled, scales, 1.0)[:, None, None]
    products = rotations @ rotations.mT - torch.eye(3, dtype=torch.float64)
    deviations = products.abs().flatten(1).amax(1)
    usable = (deviations <= _MAX_DEVIATION) & (torch.linalg.det(rotations) > 0)
    usable &= matrices.float().isfinite().flatten(1).all(1)
    if not bool(usable.all()):
        first = int(usable.int().argmin())
        _refuse_pose(matrices[first], deviations[first].item(), sources[first])
    if bool(scaled.any()):
        first = int(scaled.int().argmax())
        message = "%s: the rotations of %d poses are scaled, this one by %.4g, which is left out"
        _LOG.warning(message, sources[first], int(scaled.sum()), scales[first].item())
    left, _, right = torch.linalg.svd(rotations)
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(matrices), 1, 1)
    c2w[:, :3, :3] = left @ right
    c2w[:, :3, 3] = matrices[..., 3]
    return c2w


def _refuse_pose(matrix: Float64[Tensor, "3 4"], deviation: float, source: str) -> NoReturn:
    if not bool(matrix.float().isfinite().all()):
        raise UserError(f"{source}: the pose holds values that are not finite.")
    problem = f"its columns are not orthonormal (by {deviation:.3g})"
    if deviation <= _MAX_DEVIATION:
        problem = "it is a mirror image (determinant -1); an axis has the wrong sign"
    raise UserError(
        f"{source}: the rotation of the pose is none: {problem}. Export the cameras again, "
        "without scaling or mirroring."
    )


def check_pinhole(
    focal: tuple[float, float],
    center: tuple[float, float],
    size: tuple[float | int, float | int],
    source: str,
) -> None:
    """Refuse focal lengths (x, y) and principal points (x, y) that cannot be those of an image."""
    height, width = size
    for length, side in zip(focal, (width, height), strict=True):
        if not _MIN_FOCAL <= length / side <= _MAX_FOCAL:
            raise UserError(
                f"{source}: a focal length of {length:g} pixels cannot belong to an image "
                f"of {width:g}x{height:g}."
            )
    if not center_deviation(center, size) <= MAX_CENTER_DEVIATION:
        advice = "Do cameras and images belong together, at this size?"
        if center_deviation((center[1], center[0]), size) <= MAX_CENTER_DEVIATION:
            advice = "cx and cy seem to be swapped: cx goes with the width."
        raise UserError(
            f"{source}: the principal point ({center[0]:g}, {center[1]:g}) is not near the "
            f"centre of an image of {width:g}x{height:g}. {advice}"
        )


def check_aspect(
    size: Size, native: tuple[float | int, float | int], image: Path, camera: str
) -> None:
    """Refuse an image that is no shrunk copy of what its camera took (``native``)."""
    height, width = native
    if min(height, width) < 1:
        raise UserError(f"{camera}: an image of {width:g}x{height:g} is none.")
    if is_shrunk_copy(size, native):
        return
    turned = is_shrunk_copy((size[1], size[0]), native)
    advice = "It is turned: undo the rotation." if turned else "Is it cropped, or another photo?"
    raise UserError(
        f"{image}: the image is {size[1]}x{size[0]}, but its camera in {camera} belongs to images "
        f"of {width:g}x{height:g} or a fraction of that. {advice}"
    )


def is_shrunk_copy(size: Size, native: tuple[float | int, float | int]) -> bool:
    """Say whether an image has the shape of another, but for the rounding of its sides."""
    return abs(size[0] - native[0] * size[1] / native[1]) <= _MAX_ROUNDING


def center_deviation(center: tuple[float, float], size: tuple[float | int, float | int]) -> float:
    """Return how far a principal point (column, row) is off the centre, in image sides."""
    return max(abs(center[0] / size[1] - 0.5), abs(center[1] / size[0] - 0.5))


MOST_FAR = 1e4
"""Far as a multiple of near, beyond which near is that of a stray point."""


def given_near_far(near: float, far: float, source: str) -> Float[Tensor, " 2"]:
    """Check a range of z-depths."""
    near_far = torch.tensor([near, far], dtype=torch.float64).float()
    if not 0 < near_far[0].item() < near_far[1].item() < float("inf"):
        raise UserError(
            f"{source}: near is {near:g} and far {far:g}; 0 < near < far must hold, in the units "
            "of the camera positions. --near_far NEAR FAR chooses others."
        )
    return near_far


def estimate_near_far(cameras: Cameras, source: str) -> Float[Tensor, " 2"]:
    """Estimate near and far from the cameras alone.

    The point closest to all optical axes is where they look; near is 0.3 times its smallest z-depth
    in any view, far 2.5 times its largest. That is wide on purpose: what lies outside cannot be
    rendered. It contains the known ranges of DTU (2.8 times as long as those), LLFF's fern (1.2)
    and instant-ngp's fox (1.9). A landscape far behind the subject is cut off.
    """
    centers, axes = cameras.centers.double(), cameras.c2w[:, :3, 2].double()
    # The largest eigenvalue is 1 where all axes are parallel.
    spread = 1 - torch.linalg.eigvalsh(axes.T @ axes / len(axes))[-1].item()
    depths = torch.zeros(1)
    if spread > _MIN_SPREAD:
        depths = ((nearest_point_to_axes(centers, axes) - centers) * axes).sum(-1)
    closest, farthest = depths.min().item(), depths.max().item()
    if closest <= _MIN_DEPTH_RATIO * farthest:
        raise UserError(
            f"{source}: gives no near and far, and its cameras do not look at a common place from "
            "which they could be estimated. Give near and far in the file, or --near_far."
        )
    near, far = _NEAR_OF_FOCUS * closest, _FAR_OF_FOCUS * farthest
    _LOG.info("%s gives no near and far; estimated %.3g and %.3g", source, near, far)
    return torch.tensor([near, far])
