"""Validation of cameras and numeric arrays that are read from files."""

from __future__ import annotations

import logging
import reprlib
import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from datasets.formats.options import Size
from utils.errors import UserError, first_line
from utils.files import check_size

_NPY_ERRORS = (
    *(OSError, ValueError, TypeError, LookupError, OverflowError, EOFError, SyntaxError),
    *(MemoryError, tokenize.TokenError),
)
"""Raised by NumPy for damaged ``.npy`` files, whose headers are Python literals."""
_MAX_DEVIATION = 1e-3
"""Deviation from orthonormality, or of a rotation's scale from 1, that is rounding."""
_MIN_SCALE = 1e-6
_MIN_FOCAL, _MAX_FOCAL = 0.05, 100.0
"""Plausible focal lengths, in image sides."""
MAX_CENTER_DEVIATION = 0.25
"""Largest plausible offset of the principal point from the image centre, in image sides."""
_MAX_ROUNDING = 2.0
"""Pixels by which rounding may change the aspect of a downscaled image."""

_LOG = logging.getLogger(__name__)


def finite_array(
    values: object, shape: tuple[int, ...] | None, source: Path | str
) -> Float64[np.ndarray, "*shape"]:
    """Convert to an array of finite numbers; ``source`` begins error messages.

    A ``shape`` of None allows any.
    """
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{source}: expected numbers, found {reprlib.repr(values)}.") from error
    if not np.isfinite(array).all() or (shape is not None and array.shape != shape):
        expected = "x".join(map(str, shape or array.shape))
        raise UserError(
            f"{source}: expected {expected} finite numbers, found {reprlib.repr(values)}."
        )
    return array


def load_array(path: Path, kind: str, max_bytes: int) -> Shaped[np.ndarray, "*shape"]:
    """Map a ``.npy`` file of numbers into memory; ``kind`` names it in error messages."""
    try:
        check_size(path, max_bytes, kind)
        # Mapping checks the declared shape against the file size before memory is allocated.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _NPY_ERRORS as error:
        raise UserError(
            f"{path}: cannot read the {kind} ({first_line(error)}). Copy the file again."
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise UserError(f"{path}: the {kind} is not an array of numbers. Export it again.")
    return array


def is_rigid(matrices: Float64[Tensor, "*batch rows 4"]) -> bool:
    """Return whether all matrices of 3 or 4 rows are rotations with a translation."""
    rotations = matrices[..., :3, :3]
    deviations = rotations @ rotations.mT - torch.eye(3, dtype=torch.float64)
    last = torch.tensor([0.0, 0, 0, 1], dtype=torch.float64)
    return bool(
        matrices.float().isfinite().all()
        and (deviations.abs() < _MAX_DEVIATION).all()
        and (torch.linalg.det(rotations) > 0).all()
        and (matrices[..., 3:, :] == last).all()
    )


def is_pinhole(intrinsics: Float64[Tensor, "*batch 3 3"]) -> bool:
    """Return whether all are matrices of pinhole cameras, with less skew than focal length."""
    rows, focal_x = intrinsics.unbind(-2), intrinsics[..., 0, 0]
    last = torch.tensor([0.0, 0, 1], dtype=torch.float64)
    return bool(
        intrinsics.float().isfinite().all()
        and (focal_x > 0).all()
        and (rows[0][..., 1].abs() < focal_x).all()
        and (rows[1][..., 0] == 0).all()
        and (rows[1][..., 1] > 0).all()
        and (rows[2] == last).all()
    )


def rigid_poses(
    matrices: Float64[Tensor, "pose 3 4"], sources: Sequence[str]
) -> Float64[Tensor, "pose 4 4"]:
    """Complete poses to 4x4 and make their rotations orthonormal; ``sources`` begin messages.

    A uniform scale of the rotation, such as that of a parent object in Blender, does not change
    where a camera is or looks, and is removed.
    """
    scales = torch.linalg.det(matrices[..., :3]).abs().clamp_min(_MIN_SCALE**3).pow(1 / 3)
    scaled = (scales - 1).abs() > _MAX_DEVIATION
    rotations = matrices[..., :3] / torch.where(scaled, scales, 1.0)[:, None, None]
    products = rotations @ rotations.mT - torch.eye(3, dtype=torch.float64)
    deviations = products.abs().flatten(1).amax(1)
    valid = (deviations <= _MAX_DEVIATION) & (torch.linalg.det(rotations) > 0)
    valid &= matrices.float().isfinite().flatten(1).all(1)
    if not bool(valid.all()):
        first = int(valid.int().argmin())
        _refuse_pose(matrices[first], deviations[first].item(), sources[first])
    if bool(scaled.any()):
        first = int(scaled.int().argmax())
        message = "%s: the rotations of %d poses are scaled, this one by %.4g; the scale is removed"
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
        f"{source}: the rotation of the pose is invalid: {problem}. Export the cameras again, "
        "without scaling or mirroring."
    )


def check_pinhole(
    focal: tuple[float, float],
    center: tuple[float, float],
    size: tuple[float | int, float | int],
    source: str,
) -> None:
    """Refuse implausible focal lengths (x, y) and principal points (x, y) for an image size."""
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
    size: Size, camera_size: tuple[float | int, float | int], image: Path, camera: str
) -> None:
    """Refuse an image that is not a downscaled copy of the image size that its camera states."""
    height, width = camera_size
    if min(height, width) < 1:
        raise UserError(f"{camera}: an image size of {width:g}x{height:g} is impossible.")
    if is_shrunk_copy(size, camera_size):
        return
    rotated = is_shrunk_copy((size[1], size[0]), camera_size)
    advice = "It is rotated: undo the rotation." if rotated else "Is it cropped, or another photo?"
    raise UserError(
        f"{image}: the image is {size[1]}x{size[0]}, but its camera in {camera} belongs to images "
        f"of {width:g}x{height:g} or a fraction of that. {advice}"
    )


def is_shrunk_copy(size: Size, original: tuple[float | int, float | int]) -> bool:
    """Return whether two image sizes have the same aspect, up to rounding of the sides."""
    return abs(size[0] - original[0] * size[1] / original[1]) <= _MAX_ROUNDING


def center_deviation(center: tuple[float, float], size: tuple[float | int, float | int]) -> float:
    """Return the offset of a principal point (column, row) from the centre, in image sides."""
    return max(abs(center[0] / size[1] - 0.5), abs(center[1] / size[0] - 0.5))
