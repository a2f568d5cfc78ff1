"""Reading and resizing of images and of maps that belong to them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Shaped
from PIL import Image

from datasets.formats.options import Size
from utils.errors import UserError

DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error),
    Image.DecompressionBombError,
)
_EIGHT_BIT_MODES = ("RGB", "RGBA", "L", "P")
_MASK_THRESHOLD = 10
"""Grey value above which a mask counts, as the readers of MVSNet's DTU data have it."""


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """Open an image; whatever goes wrong while it is open is the file's fault and says so."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise UserError(f"{path}: the image is missing.") from error
    except DECODE_ERRORS as error:
        raise UserError(
            f"{path}: cannot read the image ({error}). The file is damaged or no image; "
            "copy or unpack it again."
        ) from error


def read_image_size(path: Path) -> Size:
    """Read the size from the header alone."""
    with opened_image(path) as image:
        return image.height, image.width


def read_image(
    path: Path, background: float | None = None
) -> Float32[np.ndarray, "height width 3"]:
    """Read an 8-bit image as RGB in [0, 1].

    Args:
        path: The file.
        background: Grey that shows through where the image is transparent; None: its alpha, if
            it has any, is left aside.
    """
    with opened_image(path) as image:
        if image.mode not in _EIGHT_BIT_MODES:
            raise UserError(
                f"{path}: the image has mode {image.mode!r}; convert it to 8-bit RGB first."
            )
        transparent = background is not None and image.has_transparency_data
        pixels = np.asarray(image.convert("RGBA" if transparent else "RGB"))
    values = pixels.astype(np.float32) / 255.0
    if not transparent:
        return values
    alpha = values[..., 3:]
    return values[..., :3] * alpha + np.float32(background or 0.0) * (1 - alpha)


def read_mask(path: Path) -> Bool[np.ndarray, "height width"]:
    """Read a mask image: true where it is brighter than 10 of 255."""
    with opened_image(path) as image:
        pixels = np.asarray(image.convert("L"))
    return pixels > _MASK_THRESHOLD


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

    Args:
        values: The map.
        size: Wanted height and width.
        whole_centers: Whether pixel centres lie at whole numbers, so that new pixel ``i`` takes
            the old one nearest to ``i * old / new``: so DTU's maps were shrunk in the first place.
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
