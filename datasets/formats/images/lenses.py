"""Lens models with distortion, and undistortion of images and maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from datasets.formats.options import Size

LensModel = Literal["perspective", "fisheye"]


@dataclass(frozen=True)
class Lens:
    """Intrinsics and distortion of a camera, in pixels of the original image.

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
        """Whether images need undistortion; a fisheye does even if all coefficients are 0."""
        return self.model == "fisheye" or any(self.coefficients)

    @property
    def intrinsics(self) -> Float64[Tensor, "3 3"]:
        """Intrinsics, the same before and after undistortion."""
        intrinsics = torch.eye(3, dtype=torch.float64)
        intrinsics[0, 0], intrinsics[1, 1] = self.focal
        intrinsics[0, 2], intrinsics[1, 2] = self.principal_point
        return intrinsics

    def resized(self, scale_x: float, scale_y: float) -> Lens:
        """Return the lens of an image resized by (scale_x, scale_y) = new size / old size."""
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
    """Return the image and mask of a pinhole camera with the same intrinsics.

    Pixels outside the original image repeat its border and are masked.
    """
    columns, rows = _source_coordinates(lens, (image.shape[0], image.shape[1]))
    straight = cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    straight_mask = cv2.remap(
        mask.astype(np.uint8), columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
    )
    return straight, (straight_mask > 0) & _inside_source(columns, rows)


def undistort_nearest(
    values: Float32[np.ndarray, "height width"], lens: Lens
) -> Float32[np.ndarray, "height width"]:
    """Undistort a map that must not be averaged, such as depth; 0 outside the original."""
    columns, rows = _source_coordinates(lens, (values.shape[0], values.shape[1]))
    straight = cv2.remap(
        values, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )
    return np.where(_inside_source(columns, rows), straight, np.float32(0))


def _source_coordinates(
    lens: Lens, size: Size
) -> tuple[Float32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
    """Return for each pixel its column and row in the original, with OpenCV's integer centres."""
    matrix = lens.intrinsics.numpy().copy()
    matrix[:2, 2] -= 0.5
    coefficients = np.array(lens.coefficients, np.float64)
    build_map = cv2.initUndistortRectifyMap
    if lens.model == "fisheye":
        build_map = cv2.fisheye.initUndistortRectifyMap
    return build_map(matrix, coefficients, np.eye(3), matrix, size[::-1], cv2.CV_32FC1)


def _inside_source(
    columns: Float32[np.ndarray, "height width"], rows: Float32[np.ndarray, "height width"]
) -> Bool[np.ndarray, "height width"]:
    """Return which pixels the original image shows.

    Far from the centre a distortion polynomial may fold back into the image; there the Jacobian of
    the coordinates changes sign.
    """
    height, width = columns.shape
    inside = (columns >= -0.5) & (columns <= width - 0.5) & (rows >= -0.5) & (rows <= height - 0.5)
    if min(height, width) < 2:
        return inside
    with np.errstate(all="ignore"):
        column_down, column_right = np.gradient(columns)
        row_down, row_right = np.gradient(rows)
        return inside & (column_right * row_down - column_down * row_right > 0)
