"""Photographs on disk: finding them, and reading them as views of one size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32

from datasets.formats.depth_files import DepthFile, read_depth
from datasets.formats.images import Size, read_image, read_image_size, read_mask, resize_centered
from datasets.formats.lenses import Lens, undistort, undistort_nearest
from datasets.posed_scene import ViewPixels
from utils.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_MAX_SIDE = 1 << 14
_FULLY_COVERED = 0.999
"""Share of a resized pixel that must be counted in the original; leaves room for rounding."""


@dataclass(frozen=True)
class Photo:
    """One image file and what is known of it."""

    path: Path
    size: Size
    """Of the file."""
    lens: Lens | None = None
    """Whose distortion is to be undone."""
    mask_path: Path | None = None
    depth: DepthFile | None = None


@dataclass(frozen=True)
class PhotoReader:
    """Reads views from photographs, undistorted and at one size. View ids count ``photos``."""

    photos: tuple[Photo, ...]
    size: Size
    background: float | None = None
    """Grey behind transparent pixels; None leaves transparency aside."""

    def __call__(self, view: int) -> ViewPixels:
        """Read one view.

        Raises:
            UserError: Its file is damaged, or was replaced by one of another size.
        """
        photo = self.photos[view]
        image = read_image(photo.path, self.background)
        _require_size(photo.path, (image.shape[0], image.shape[1]), photo.size)
        mask = np.ones(photo.size, np.bool_)
        if photo.mask_path is not None:
            mask = read_mask(photo.mask_path)
            _require_size(photo.mask_path, (mask.shape[0], mask.shape[1]), photo.size)
        depth = np.zeros(photo.size, np.float32)
        if photo.depth is not None:
            depth = resize_centered(read_depth(photo.depth), photo.size)
        if photo.lens is not None and photo.lens.distorts:
            image, mask = undistort(image, mask, photo.lens)
            depth = undistort_nearest(depth, photo.lens)
        return ViewPixels(
            image=_resize(image, self.size),
            depth=resize_centered(depth, self.size),
            mask=_resize(mask.astype(np.float32), self.size) > _FULLY_COVERED,
        )


def list_folder(folder: Path) -> list[Path]:
    """List a folder by name; hidden files are passed over.

    Raises:
        UserError: The folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot list the folder ({error.strerror}).") from error


def list_images(folder: Path) -> list[Path]:
    """List the image files of a folder by name.

    Raises:
        UserError: The folder cannot be read.
    """
    return [path for path in list_folder(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def choose_image_folder(folders: Mapping[Path, Size], wanted: Size | None) -> Path:
    """Choose the smallest images that need not be enlarged, else the largest.

    Args:
        folders: With the size of the images in each.
        wanted: Height and width; None: the largest.
    """
    ordered = sorted(folders, key=lambda folder: folders[folder][0] * folders[folder][1])
    if wanted is None:
        return ordered[-1]
    enough = [
        folder
        for folder in ordered
        if folders[folder][0] >= wanted[0] and folders[folder][1] >= wanted[1]
    ]
    return enough[0] if enough else ordered[-1]


def common_size(paths: Iterable[Path], sizes: Iterable[Size]) -> Size:
    """Return the size that all images have.

    Raises:
        UserError: Two differ.
    """
    first, *others = zip(paths, sizes, strict=True)
    for path, size in others:
        if size != first[1]:
            raise UserError(
                f"{path}: the image is {size[1]}x{size[0]}, but {first[0]} is "
                f"{first[1][1]}x{first[1][0]}. Choose one size that all are resized to."
            )
    return first[1]


def check_wanted_size(size: Size) -> None:
    """Refuse a size that no image can be brought to.

    Raises:
        UserError: Names the size.
    """
    if not all(1 <= side <= _MAX_SIDE for side in size):
        raise UserError(
            f"Images cannot be resized to {size[1]}x{size[0]}; sides must be 1 to {_MAX_SIDE}."
        )


def read_sizes(paths: Iterable[Path]) -> list[Size]:
    """Read the headers of images; a damaged or empty file fails here, before any long work.

    Raises:
        UserError: Names the first file that is missing or no image.
    """
    return [read_image_size(path) for path in paths]


def _require_size(path: Path, size: Size, expected: Size) -> None:
    if size != expected:
        raise UserError(
            f"{path}: {size[1]}x{size[0]} pixels, but {expected[1]}x{expected[0]} go with its "
            "view. Bring it to that size, or remove it."
        )


def _resize(
    values: Float32[np.ndarray, "height width *channels"], size: Size
) -> Float32[np.ndarray, "new_height new_width *channels"]:
    """Resize without aliasing: means over areas where it shrinks, linear where it grows."""
    height, width = min(size[0], values.shape[0]), min(size[1], values.shape[1])
    if values.shape[:2] != (height, width):
        values = cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)
    if size != (height, width):
        values = cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR)
    return values
