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

from utils.errors import UserError

Size = tuple[int, int]
"""Height and width."""

_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)
_EIGHT_BIT_MODES = ("RGB", "RGBA", "L", "P")
_MASK_THRESHOLD = 10
"""Grey value above which a mask counts, as the readers of MVSNet's DTU data have it."""


def read_image_size(path: Path) -> Size:
    """Read the size from the header alone.

    Raises:
        UserError: The file is missing or no image.
    """
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

    Raises:
        UserError: The file is missing, empty, truncated, no image, or not of 8 bits per channel.
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
    """Read a mask image: true where it is brighter than 10 of 255.

    Raises:
        UserError: The file is missing, empty, truncated or no image.
    """
    with opened_image(path) as image:
        pixels = np.asarray(image.convert("L"))
    return pixels > _MASK_THRESHOLD


def resize_area(
    image: Float32[np.ndarray, "height width 3"], size: Size
) -> Float32[np.ndarray, "new_height new_width 3"]:
    """Shrink an image; every new pixel is the mean over the area that it covers."""
    if image.shape[:2] == size:
        return image
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def resize_nearest(
    values: Shaped[np.ndarray, "height width"], size: Size
) -> Shaped[np.ndarray, "new_height new_width"]:
    """Resize a map that must not be averaged, such as depth.

    New pixel ``i`` takes the old pixel nearest to ``i * old / new``: the rule (pixel centres at
    whole numbers) by which DTU's depth maps were shrunk in the first place.
    """
    height, width = values.shape
    if (height, width) == size:
        return values
    rows = np.floor(np.arange(size[0]) * (height / size[0]) + 0.5).astype(int)
    columns = np.floor(np.arange(size[1]) * (width / size[1]) + 0.5).astype(int)
    return values[np.ix_(rows.clip(max=height - 1), columns.clip(max=width - 1))]


def resize_centered(
    values: Shaped[np.ndarray, "height width"], size: Size
) -> Shaped[np.ndarray, "new_height new_width"]:
    """Resize a map that must not be averaged: the old pixel under the centre of the new one."""
    height, width = values.shape
    if (height, width) == size:
        return values
    rows = ((np.arange(size[0]) + 0.5) * (height / size[0])).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * (width / size[1])).astype(int)
    return values[np.ix_(rows.clip(max=height - 1), columns.clip(max=width - 1))]


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """Open an image; whatever goes wrong while it is open is the file's fault and says so.

    Raises:
        UserError: The file is missing, empty, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise UserError(f"{path}: the image is missing.") from error
    except _DECODE_ERRORS as error:
        raise UserError(
            f"{path}: cannot read the image ({error}). The file is damaged or no image; "
            "copy or unpack it again."
        ) from error
