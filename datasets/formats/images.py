"""Depth maps (PFM, PNG, TIFF, NumPy arrays); resizing and undistorting of images and maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Shaped
from torch import Tensor

from datasets.formats.checks import ARRAY_ERRORS
from datasets.formats.decoding import check_pixels, opened_image
from datasets.formats.options import Size
from utils.errors import UserError, first_line

LensModel = Literal["perspective", "fisheye"]

DEPTH_SUFFIXES = (".pfm", ".png", ".tif", ".tiff", ".npy")
_IMAGE_MODES = ("I;16", "I;16B", "I", "F", "L")
_MAX_VALUES = 1 << 26
_MAX_HEADER_LINE = 64
"""No sane header line of a PFM is longer; bounds what is read of a file that is none."""


def resize_smooth(
    values: Float32[np.ndarray, "height width *channels"], size: Size
) -> Float32[np.ndarray, "new_height new_width *channels"]:
    """Resize without aliasing: means over areas where it shrinks, linear where it grows."""
    height, width = min(size[0], values.shape[0]), min(size[1], values.shape[1])
    if values.shape[:2] != (height, width):
        values = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)
    if size != (height, width):
        values = cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR)
    return values


def resize_nearest(
    values: Shaped[np.ndarray, "height width"], size: Size, whole_centers: bool = False
) -> Shaped[np.ndarray, "new_height new_width"]:
    """Resize a map that must not be averaged, such as depth, by the old pixel at the new centre.

    With ``whole_centers``, pixel centres lie at whole numbers, so that new pixel ``i`` takes the
    old one nearest to ``i * old / new``: so DTU's maps were shrunk in the first place.
    """
    if values.shape == size:
        return values
    # Half a pixel is added to the new position, or else to the old one that it maps to.
    before, after = (0.0, 0.5) if whole_centers else (0.5, 0.0)
    rows, columns = (
        np.floor((np.arange(new) + before) * (old / new) + after).astype(int).clip(max=old - 1)
        for old, new in zip(values.shape, size, strict=True)
    )
    return values[np.ix_(rows, columns)]


@dataclass(frozen=True)
class DepthFile:
    """A map of z-depths, and what its values are to be multiplied with."""

    path: Path
    scale: float = 1.0


def read_depth(file: DepthFile) -> Float32[np.ndarray, "height width"]:
    """Read a depth map; whatever is not a positive finite number becomes 0, which is unknown."""
    path = file.path
    suffix = path.suffix.lower()
    if suffix not in DEPTH_SUFFIXES:
        raise UserError(f"{path}: depth is read from {', '.join(DEPTH_SUFFIXES)} alone.")
    values = {".pfm": read_pfm, ".npy": _read_array}.get(suffix, _read_image)(path)
    with np.errstate(over="ignore", invalid="ignore"):
        depth = values.astype(np.float32) * np.float32(file.scale)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def read_pfm(path: Path) -> Float32[np.ndarray, "height width"]:
    """Read a one-channel PFM with its first row on top, values as they stand in the file."""
    try:
        with path.open("rb") as file:
            width, height, byte_order = _read_header(file, path)
            promised = width * height * 4
            held = path.stat().st_size - file.tell()
            if held != promised:
                raise UserError(
                    f"{path}: the header promises {width}x{height} values ({promised} bytes), "
                    f"but {held} bytes follow it. Copy or convert the file again."
                )
            values = np.frombuffer(file.read(promised), dtype=f"{byte_order}f4")
    except OSError as error:
        raise UserError(f"{path}: cannot read the depth map ({error}).") from error
    return np.flipud(values.reshape(height, width)).astype(np.float32)


def write_pfm(path: Path, values: Float32[np.ndarray, "height width"]) -> None:
    """Write a one-channel little-endian PFM, rows from bottom to top."""
    height, width = values.shape
    header = f"Pf\n{width} {height}\n-1.0\n".encode()
    path.write_bytes(header + np.flipud(values).astype("<f4").tobytes())


def _read_header(file: BinaryIO, path: Path) -> tuple[int, int, str]:
    magic, size, scale = (
        file.readline(_MAX_HEADER_LINE).decode("ascii", "replace").strip() for _ in range(3)
    )
    if magic != "Pf":
        kind = "a colour PFM, not a depth map" if magic == "PF" else "no PFM file"
        raise UserError(f"{path}: this is {kind}: its first line is {magic!r} instead of 'Pf'.")
    try:
        width, height = (int(word) for word in size.split())
        sign = float(scale)
    except ValueError as error:
        raise UserError(
            f"{path}: malformed PFM header: expected 'width height' and a scale, "
            f"found {size!r} and {scale!r}."
        ) from error
    if width < 1 or height < 1 or not np.isfinite(sign) or sign == 0:
        raise UserError(f"{path}: impossible PFM header: size {size!r}, scale {scale!r}.")
    return width, height, "<" if sign < 0 else ">"


def _read_array(path: Path) -> Shaped[np.ndarray, "height width"]:
    try:
        # Mapping compares the promised shape with the file's size before any memory is taken.
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except ARRAY_ERRORS as error:
        raise UserError(f"{path}: cannot read the depth map ({first_line(error)}).") from error
    if isinstance(values, np.ndarray) and values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    usable = isinstance(values, np.ndarray) and values.ndim == 2 and values.dtype.kind in "fiu"
    if not usable or not 0 < values.size <= _MAX_VALUES:
        raise UserError(f"{path}: expected an array (height, width) of numbers.")
    return np.asarray(values)


def _read_image(path: Path) -> Shaped[np.ndarray, "height width"]:
    with opened_image(path) as image:
        if image.mode not in _IMAGE_MODES:
            raise UserError(
                f"{path}: the depth map has mode {image.mode!r}; expected one channel of 16 bits "
                "or of float."
            )
        check_pixels(path, image, _MAX_VALUES)
        return np.asarray(image)


@dataclass(frozen=True)
class Lens:
    """A camera's intrinsics with its distortion, in pixels of the original image.

    Perspective coefficients are OpenCV's ``k1 k2 p1 p2 k3 [k4 k5 k6]`` (Brown, 1966), fisheye
    coefficients its ``k1 k2 k3 k4`` (Kannala and Brandt, 2006). The principal point follows
    ``utils.cameras``.
    """

    model: LensModel
    focal: tuple[float, float]
    principal_point: tuple[float, float]
    coefficients: tuple[float, ...]

    @property
    def distorts(self) -> bool:
        """A fisheye without coefficients still bends lines; a perspective lens does not."""
        return self.model == "fisheye" or any(self.coefficients)

    @property
    def intrinsics(self) -> Float64[Tensor, "3 3"]:
        """Intrinsics of the image, the same before and after distortion is undone."""
        intrinsics = torch.eye(3, dtype=torch.float64)
        intrinsics[0, 0], intrinsics[1, 1] = self.focal
        intrinsics[0, 2], intrinsics[1, 2] = self.principal_point
        return intrinsics

    def resized(self, scale_x: float, scale_y: float) -> Lens:
        """Follow an image that is resized by (scale_x, scale_y) = new size / old size."""
        (focal_x, focal_y), (center_x, center_y) = self.focal, self.principal_point
        return replace(
            self,
            focal=(focal_x * scale_x, focal_y * scale_y),
            principal_point=(center_x * scale_x, center_y * scale_y),
        )


def undistort(
    image: Float32[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "height width"],
    lens: Lens,
) -> tuple[Float32[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
    """Return the image that a pinhole camera with the same intrinsics would have taken.

    Pixels that the original does not show repeat its border and leave the mask.
    """
    size: Size = (image.shape[0], image.shape[1])
    columns, rows = _origins(lens, size)
    straight = cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    counted = cv2.remap(
        mask.astype(np.uint8), columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
    )
    return straight, (counted > 0) & _shown(columns, rows)


def undistort_nearest(
    values: Float32[np.ndarray, "height width"], lens: Lens
) -> Float32[np.ndarray, "height width"]:
    """Do the same to a map that must not be averaged, such as depth; 0 where nothing is shown."""
    columns, rows = _origins(lens, (values.shape[0], values.shape[1]))
    straight = cv2.remap(
        values, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )
    return np.where(_shown(columns, rows), straight, np.float32(0))


def _origins(
    lens: Lens, size: Size
) -> tuple[Float32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
    """Return column and row in the original of every pixel, in OpenCV's whole-number centres."""
    matrix = lens.intrinsics.numpy().copy()
    matrix[:2, 2] -= 0.5
    coefficients = np.array(lens.coefficients, np.float64)
    undo = cv2.initUndistortRectifyMap
    if lens.model == "fisheye":
        undo = cv2.fisheye.initUndistortRectifyMap
    return undo(matrix, coefficients, np.eye(3), matrix, size[::-1], cv2.CV_32FC1)


def _shown(
    columns: Float32[np.ndarray, "height width"], rows: Float32[np.ndarray, "height width"]
) -> Bool[np.ndarray, "height width"]:
    """Say which pixels the original shows.

    Far from the centre a distortion polynomial may turn back into the image; there the map from
    pixel to origin no longer keeps its orientation.
    """
    height, width = columns.shape
    inside = (columns >= -0.5) & (columns <= width - 0.5) & (rows >= -0.5) & (rows <= height - 0.5)
    if min(height, width) < 2:
        return inside
    with np.errstate(all="ignore"):
        column_down, column_right = np.gradient(columns)
        row_down, row_right = np.gradient(rows)
        return inside & (column_right * row_down - column_down * row_right > 0)
