"""From DTU's files of any circulating size to images, depths and masks of one size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from datasets.formats.dtu_cameras import CROP_LEFT, CROP_TOP, CROPPED_SIZE, PHOTO_SIZE
from datasets.formats.images import Size, read_image, read_mask, resize_area, resize_nearest
from datasets.formats.pfm import read_pfm
from utils.errors import UserError


def native_size(file_size: Size) -> Size:
    """Return the size at which a file of ``file_size`` is used before any ``image_scale``."""
    return CROPPED_SIZE if file_size == PHOTO_SIZE else file_size


def scaled_size(size: Size, image_scale: float) -> Size:
    """Scale an image size.

    Raises:
        UserError: The sides would not be whole numbers.
    """
    sides = [side * image_scale for side in size]
    whole = [round(side) for side in sides]
    if min(whole) < 1 or any(
        abs(side - near) > 1e-6 for side, near in zip(sides, whole, strict=True)
    ):
        raise UserError(
            f"image_scale {image_scale:g} makes {sides[1]:g}x{sides[0]:g} of "
            f"{size[1]}x{size[0]} images; choose one that leaves whole pixels, such as 0.5."
        )
    return whole[0], whole[1]


def load_image(path: Path, native: Size, size: Size) -> Float32[np.ndarray, "height width 3"]:
    """Read an image at ``size``; its file must give the native size of the data set.

    Raises:
        UserError: The file is damaged or of another size than the rest of the data set.
    """
    image = read_image(path)
    file_size: Size = (image.shape[0], image.shape[1])
    if native_size(file_size) != native:
        raise UserError(
            f"{path}: the image is {file_size[1]}x{file_size[0]}, but the data set has "
            f"{native[1]}x{native[0]} images."
        )
    if file_size == PHOTO_SIZE:
        image = _cropped(resize_area(image, (PHOTO_SIZE[0] // 2, PHOTO_SIZE[1] // 2)))
    return resize_area(image, size)


def load_depth(path: Path, native: Size, size: Size) -> Float32[np.ndarray, "height width"]:
    """Read a depth map at ``size``, in the file's units; what is no depth becomes 0.

    Raises:
        UserError: The file is damaged or its size does not go with the images.
    """
    depth = resize_nearest(_to_native(read_pfm(path), native, path), size)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def load_mask(path: Path, native: Size, size: Size) -> Bool[np.ndarray, "height width"]:
    """Read a mask at ``size``.

    Raises:
        UserError: The file is damaged or its size does not go with the images.
    """
    return resize_nearest(_to_native(read_mask(path), native, path), size)


def _cropped(image: Shaped[np.ndarray, "height width ..."]) -> Shaped[np.ndarray, "512 640 ..."]:
    height, width = CROPPED_SIZE
    return image[CROP_TOP : CROP_TOP + height, CROP_LEFT : CROP_LEFT + width]


def _to_native(
    values: Shaped[np.ndarray, "height width"], native: Size, path: Path
) -> Shaped[np.ndarray, "native_height native_width"]:
    """Bring a map of photo size, image size or an even fraction of it to the image size."""
    height, width = values.shape
    if (height, width) == PHOTO_SIZE and native == CROPPED_SIZE:
        return _cropped(resize_nearest(values, (height // 2, width // 2)))
    if native[0] % height or native[1] % width or native[0] // height != native[1] // width:
        raise UserError(
            f"{path}: the map is {width}x{height}, which does not go with "
            f"{native[1]}x{native[0]} images."
        )
    return resize_nearest(values, native)
