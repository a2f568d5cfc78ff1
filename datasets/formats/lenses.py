"""Lenses that do not draw straight lines, COLMAP's among them, and undoing their distortion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from datasets.formats.checks import check_pinhole
from datasets.formats.colmap_model import ColmapCamera
from datasets.formats.options import Size
from utils.errors import UserError

LensModel = Literal["perspective", "fisheye"]
_MAX_ROUNDING = 2.0
"""Pixels by which the sides of a shrunk photo may be rounded, together."""
_FISHEYES = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
_ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", *_FISHEYES[1:])
_UNSUPPORTED = ("FOV", "THIN_PRISM_FISHEYE")


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


def image_lens(camera: ColmapCamera, size: Size, source: str) -> Lens:
    """Return the lens of a photo, which may be a shrunk copy of what COLMAP saw.

    ``source``, the file and camera, begins error messages.
    """
    if camera.model in _UNSUPPORTED:
        raise UserError(
            f"{source}: camera model {camera.model} is not supported. Undistort the photos with "
            "COLMAP's image_undistorter."
        )
    _check_shape(camera, size, source)
    scale = size[1] / camera.width, size[0] / camera.height
    focals = 1 if camera.model in _ONE_FOCAL else 2
    focal_x, focal_y = camera.parameters[0], camera.parameters[focals - 1]
    center_x, center_y = camera.parameters[focals : focals + 2]
    full_size = camera.height, camera.width
    check_pinhole((focal_x, focal_y), (center_x, center_y), full_size, source)
    return Lens(
        "fisheye" if camera.model in _FISHEYES else "perspective",
        (focal_x * scale[0], focal_y * scale[1]),
        (center_x * scale[0], center_y * scale[1]),
        _coefficients(camera.model, camera.parameters[focals + 2 :]),
    )


def _coefficients(model: str, numbers: tuple[float, ...]) -> tuple[float, ...]:
    """Bring COLMAP's coefficients into OpenCV's order: k1 k2 p1 p2 k3 k4 k5 k6, or k1 to k4."""
    if model in _FISHEYES:
        return (*numbers, 0.0, 0.0, 0.0, 0.0)[:4]
    if model in ("SIMPLE_RADIAL", "RADIAL"):
        return (*numbers, 0.0)[:2] + (0.0, 0.0, 0.0)
    if model == "OPENCV":
        return (*numbers, 0.0)
    return numbers or (0.0,) * 5


def _check_shape(camera: ColmapCamera, size: Size, source: str) -> None:
    if min(camera.width, camera.height) < 1:
        raise UserError(f"{source}: an image of {camera.width}x{camera.height} is none.")
    if abs(size[0] - camera.height * size[1] / camera.width) <= _MAX_ROUNDING:
        return
    turned = abs(size[1] - camera.height * size[0] / camera.width) <= _MAX_ROUNDING
    advice = "It is turned: undo the rotation." if turned else "Is it cropped, or another photo?"
    raise UserError(
        f"{source}: belongs to images of {camera.width}x{camera.height} or a fraction of that, "
        f"but the photo is {size[1]}x{size[0]}. {advice}"
    )
