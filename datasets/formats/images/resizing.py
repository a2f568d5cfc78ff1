"""Resizing of images, depth maps and masks."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Shaped

from datasets.formats.options import Size

_FULLY_COVERED = 0.999
"""Share of a resized mask pixel that must be true in the original; allows for rounding."""


def resize_smooth(
    values: Float32[np.ndarray, "height width *channels"], size: Size
) -> Float32[np.ndarray, "new_height new_width *channels"]:
    """Resize without aliasing: area averages where it shrinks, linear where it grows."""
    height, width = min(size[0], values.shape[0]), min(size[1], values.shape[1])
    if values.shape[:2] != (height, width):
        values = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)
    if size != (height, width):
        values = cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR)
    return values


def resize_nearest(
    values: Shaped[np.ndarray, "height width"], size: Size, integer_centers: bool = False
) -> Shaped[np.ndarray, "new_height new_width"]:
    """Resize a map that must not be averaged, such as depth, by its nearest pixel.

    Pixel centres are at +0.5. With ``integer_centers`` they are at integers, so that new pixel
    ``i`` takes the old pixel nearest to ``i * old / new``, as DTU's own depth maps were shrunk.
    """
    if values.shape == size:
        return values
    before, after = (0.0, 0.5) if integer_centers else (0.5, 0.0)
    rows, columns = (
        np.floor((np.arange(new) + before) * (old / new) + after).astype(int).clip(max=old - 1)
        for old, new in zip(values.shape, size, strict=True)
    )
    return values[np.ix_(rows, columns)]


def resize_mask(
    mask: Bool[np.ndarray, "height width"], size: Size
) -> Bool[np.ndarray, "new_height new_width"]:
    """Resize a mask; a new pixel is true if all old pixels that it covers are."""
    return resize_smooth(mask.astype(np.float32), size) > _FULLY_COVERED
