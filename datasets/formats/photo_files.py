"""Photographs on disk: finding them, and reading them as views of one size."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from datasets.formats.depth_range import MATCHED_SIDE, SmallViews, choose_near_far
from datasets.formats.images import (
    DepthFile,
    Lens,
    read_depth,
    read_image,
    read_image_size,
    read_mask,
    resize_nearest,
    resize_smooth,
    undistort,
    undistort_nearest,
)
from datasets.formats.options import ReadOptions, Size
from datasets.posed_scene import PosedScene, ViewPixels
from utils.cameras import Cameras, resize_intrinsics
from utils.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_FULLY_COVERED = 0.999
"""Share of a resized pixel that must be counted in the original; leaves room for rounding."""
_NUMBERS = re.compile(r"(\d+)")
_MAX_DIGITS = 20
_NAMES_SHOWN = 3
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Photo:
    """One image file and what is known of it."""

    path: Path
    size: Size
    intrinsics: Float64[Tensor, "3 3"]
    lens: Lens | None = None
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
        """Read one view."""
        photo = self.photos[view]
        image = read_image(photo.path, self.background)
        _require_size(photo.path, (image.shape[0], image.shape[1]), photo.size)
        mask = np.ones(photo.size, np.bool_)
        if photo.mask_path is not None:
            mask = read_mask(photo.mask_path)
            _require_size(photo.mask_path, (mask.shape[0], mask.shape[1]), photo.size)
        depth = np.zeros(photo.size, np.float32)
        if photo.depth is not None:
            depth = resize_nearest(read_depth(photo.depth), photo.size)
        if photo.lens is not None and photo.lens.distorts:
            image, mask = undistort(image, mask, photo.lens)
            depth = undistort_nearest(depth, photo.lens)
        return ViewPixels(
            image=resize_smooth(image, self.size),
            depth=resize_nearest(depth, self.size),
            mask=resize_smooth(mask.astype(np.float32), self.size) > _FULLY_COVERED,
        )


def list_folder(folder: Path) -> list[Path]:
    """List a folder by name; hidden files are passed over."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot list the folder ({error.strerror}).") from error


def describe_folder(folder: Path) -> str:
    """Say in a message what a folder holds."""
    if not folder.is_dir():
        return "there is no such folder"
    found = ", ".join(entry.name for entry in list_folder(folder)[:8]) or "nothing"
    return f"the folder holds {found}"


def list_images(folder: Path) -> list[Path]:
    """List the image files of a folder, by the numbers in their names."""
    found = [path for path in list_folder(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found, key=lambda path: by_number(path.name))


def by_number(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts r_2 before r_10, and padded names as they are."""
    return [
        (int(part), "") if part.isdecimal() and len(part) < _MAX_DIGITS else (-1, part)
        for part in _NUMBERS.split(name)
        if part
    ]


def common_spelling(name: str) -> str:
    """Return the name of a file as other systems spell it: slashes forward, no ``./``."""
    return str(PurePosixPath(name.strip().replace("\\", "/")))


def find_image(folder: Path, name: str) -> Path | None:
    """Return the image file of a name, which may lack its suffix or have another one.

    Upper and lower case of the suffix, and composed and decomposed accents, count the same.
    """
    path = folder / common_spelling(name)
    spelled = [path, *(Path(f"{path}{suffix}") for suffix in IMAGE_SUFFIXES)]
    if path.suffix.lower() in IMAGE_SUFFIXES:
        spelled += [path.with_suffix(suffix) for suffix in IMAGE_SUFFIXES]
    # os.path answers for names that no file can have, too.
    if found := next((candidate for candidate in spelled if os.path.isfile(candidate)), None):
        return found
    names = {unicodedata.normalize("NFC", candidate.name.casefold()) for candidate in spelled}
    beside = list_images(path.parent) if os.path.isdir(path.parent) else []
    return next(
        (other for other in beside if unicodedata.normalize("NFC", other.name.casefold()) in names),
        None,
    )


def find_image_folders(root: Path, pattern: str) -> list[Path]:
    """Return the folders whose name matches, with or without a number as in images_4."""
    name = re.compile(rf"({pattern})(_\d+)?")
    return [entry for entry in list_folder(root) if name.fullmatch(entry.name) and entry.is_dir()]


def choose_image_folder(
    folders: Mapping[Path, Size], options: ReadOptions
) -> tuple[Path, ReadOptions]:
    """Choose the smallest images that need not be enlarged, else the largest; and how to read them.

    ``folders`` come with the size of their images.
    """
    ordered = sorted(folders, key=lambda folder: folders[folder][0] * folders[folder][1])
    height, width = options.target_size(folders[ordered[-1]])
    for folder in ordered[:-1]:
        if folders[folder][0] >= height and folders[folder][1] >= width:
            return folder, replace(options, size=(height, width))
    return ordered[-1], options


def read_sizes(paths: Iterable[Path]) -> list[Size]:
    """Read the headers of images, so that a damaged file fails before any long work."""
    return [read_image_size(path) for path in paths]


def common_size(paths: Iterable[Path], sizes: Iterable[Size]) -> Size:
    """Return the size that all images have."""
    first, *others = zip(paths, sizes, strict=True)
    for path, size in others:
        if size != first[1]:
            raise UserError(
                f"{path}: the image is {size[1]}x{size[0]}, but {first[0]} is "
                f"{first[1][1]}x{first[1][0]}. Choose one size that all are resized to with "
                "--image_size HEIGHT WIDTH."
            )
    return first[1]


def photo_scene(
    name: str,
    source: Path,
    photos: Sequence[Photo],
    c2w: Sequence[Float64[Tensor, "4 4"]],
    options: ReadOptions,
    near_far: tuple[float, float] | None = None,
    **known: Any,  # noqa: ANN401
) -> PosedScene:
    """Put a scene of photos together, all read at one size.

    Without ``near_far`` of the files, which ``source`` stands for in messages, it is estimated
    unless chosen. ``known`` holds further fields of ``PosedScene``.
    """
    paths, sizes = [photo.path for photo in photos], [photo.size for photo in photos]
    if not options.allows_several_sizes:
        common_size(paths, sizes)
    size = options.target_size(sizes[0])
    poses = torch.stack(list(c2w)).float()
    small = ReadOptions(longest_side=MATCHED_SIDE).target_size(sizes[0])
    views = SmallViews(
        Cameras(_intrinsics(photos, small), poses), PhotoReader(tuple(photos), small)
    )
    fields: dict[str, Any] = {
        "view_names": tuple(path.name for path in paths),
        "near_far": choose_near_far(options.near_far, near_far, views, source),
        "read_view": PhotoReader(tuple(photos), size),
    }
    cameras = Cameras(_intrinsics(photos, size), poses)
    return PosedScene(
        name, tuple(range(len(photos))), cameras=cameras, image_size=size, **(fields | known)
    )


def _intrinsics(photos: Sequence[Photo], size: Size) -> Float[Tensor, "view 3 3"]:
    """Return the intrinsics of photos that are read at one size."""
    own = [
        resize_intrinsics(photo.intrinsics, size[1] / photo.size[1], size[0] / photo.size[0])
        for photo in photos
    ]
    return torch.stack(own).float()


def warn_of_unused(used: Iterable[Path], source: Path) -> None:
    """Say how many photos have no camera: structure from motion often leaves some out."""
    known = {path.resolve() for path in used}
    beside = [path for folder in {path.parent for path in known} for path in list_images(folder)]
    unused = sorted(path.name for path in beside if path.resolve() not in known)
    if unused:
        warn_once(
            f"{source}: {len(unused)} images beside those that it names have no camera and are "
            f"left out: {shortened(unused)}"
        )


@lru_cache(maxsize=4096)
def warn_once(message: str) -> None:
    """Log a warning, but not again when the scene is opened again."""
    _LOG.warning("%s", message)


def shortened(names: Sequence[str]) -> str:
    """Join the first few names."""
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def _require_size(path: Path, size: Size, expected: Size) -> None:
    if size != expected:
        raise UserError(
            f"{path}: {size[1]}x{size[0]} pixels, but {expected[1]}x{expected[0]} go with its "
            "view. Bring it to that size, or remove it."
        )
