"""Photographs on disk: finding them, and reading them as views of one size."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from datasets.formats.checks import is_shrunk_copy
from datasets.formats.decoding import read_header, read_image, read_image_size, read_mask
from datasets.formats.depth_range import MATCHED_SIDE, SmallViews, choose_near_far
from datasets.formats.image_files import list_images
from datasets.formats.images import (
    DepthFile,
    Lens,
    read_depth,
    resize_nearest,
    resize_smooth,
    undistort,
    undistort_nearest,
)
from datasets.formats.options import ReadOptions, Size
from datasets.posed_scene import PosedScene, ViewPixels
from utils.cameras import Cameras, recentred, resize_intrinsics
from utils.errors import UserError

_FULLY_COVERED = 0.999
"""Share of a resized pixel that must be counted in the original; leaves room for rounding."""
_NAMES_SHOWN = 3
_DYNAMIC_MASK = "dynamic_mask_"
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
    upright: bool = True
    """Whether its camera saw it as EXIF says that it is to be seen."""


@dataclass(frozen=True)
class PhotoReader:
    """Reads views from photographs, undistorted and at one size. View ids count ``photos``."""

    photos: tuple[Photo, ...]
    size: Size
    background: float
    """Grey behind transparent pixels."""

    def __call__(self, view: int) -> ViewPixels:
        """Read one view."""
        photo = self.photos[view]
        header = read_header(photo.path)
        there = header.upright if photo.upright else header.stored
        if there != photo.size:
            raise _wrong_size(photo.path, there, photo.size)
        image = read_image(photo.path, self.background, upright=photo.upright, least=self.size)
        size: Size = (image.shape[0], image.shape[1])
        mask = np.ones(size, np.bool_)
        if photo.mask_path is not None:
            mask = read_mask(photo.mask_path)
            of_mask = (mask.shape[0], mask.shape[1])
            if not is_shrunk_copy(of_mask, photo.size):
                raise _wrong_size(photo.mask_path, of_mask, photo.size)
            mask = _resized_mask(mask, size)
        depth = np.zeros(size, np.float32)
        if photo.depth is not None:
            depth = resize_nearest(read_depth(photo.depth), size)
        if photo.lens is not None and photo.lens.distorts:
            lens = photo.lens.resized(size[1] / photo.size[1], size[0] / photo.size[0])
            image, mask = undistort(image, mask, lens)
            depth = undistort_nearest(depth, lens)
        return ViewPixels(
            image=resize_smooth(image, self.size),
            depth=resize_nearest(depth, self.size),
            mask=_resized_mask(mask, self.size),
        )


def read_sizes(paths: Iterable[Path]) -> list[Size]:
    """Read the headers of images, so that a damaged file fails before any long work."""
    return [read_image_size(path) for path in paths]


def sizes_for_cameras(
    paths: Sequence[Path], natives: Sequence[Size | None], source: Path, exif: bool = True
) -> list[tuple[Size, bool]]:
    """Return for each photo the size that its camera saw, and whether EXIF's turn is part of that.

    The sizes that the files of cameras speak of (``natives``) decide where they can: some programs
    follow EXIF and others do not. Else ``exif`` does.
    """
    sizes, turned = [], []
    for path, native in zip(paths, natives, strict=True):
        header, upright = read_header(path), exif
        if native is not None and header.upright != header.stored:
            fits = is_shrunk_copy(header.upright, native), is_shrunk_copy(header.stored, native)
            upright = fits[0] if fits[0] != fits[1] else exif
        sizes.append((header.upright if upright else header.stored, upright))
        if header.turned:
            turned.append((path.name, upright))
    for upright in (True, False):
        if names := [name for name, way in turned if way == upright]:
            how = "read upright" if upright else "read as they are stored, as their cameras are"
            warn_once(f"{source}: EXIF turns {len(names)} photos, {how}: {shortened(names)}")
    return sizes


def common_size(paths: Iterable[Path], sizes: Iterable[Size]) -> Size:
    """Return the size that all images have."""
    first, *others = zip(paths, sizes, strict=True)
    for path, size in others:
        if size != first[1]:
            raise UserError(
                f"{path}: the image is {size[1]}x{size[0]}, but {first[0]} is "
                f"{first[1][1]}x{first[1][0]}. Choose one size for all, for example "
                f"--image_size {min(size, first[1])[0]} {min(size, first[1])[1]}."
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
    _check_masks(photos, source)
    poses, origin = recentred(torch.stack(list(c2w)))
    small = ReadOptions(longest_side=MATCHED_SIDE).target_size(sizes[0])
    reader = PhotoReader(tuple(photos), small, options.background)
    views = SmallViews(Cameras(_intrinsics(photos, small), poses), reader)
    fields: dict[str, Any] = {
        "origin": origin,
        "view_names": tuple(path.name for path in paths),
        "image_files": tuple(paths),
        "near_far": choose_near_far(options.near_far, near_far, views, source),
        "read_view": PhotoReader(tuple(photos), size, options.background),
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
    used = list(used)
    known = {path.resolve() for path in used}
    beside = [path for folder in {path.parent for path in used} for path in list_images(folder)]
    unused = sorted(path.name for path in beside if path.is_file() and path.resolve() not in known)
    masks = [name for name in unused if name.startswith(_DYNAMIC_MASK)]
    if masks:
        warn_once(
            f"{source}: {len(masks)} masks of instant-ngp are not used ({shortened(masks)}); give "
            "them as mask_path, white where pixels count"
        )
    if unused := [name for name in unused if name not in masks]:
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


def _resized_mask(
    mask: Bool[np.ndarray, "height width"], size: Size
) -> Bool[np.ndarray, "new_height new_width"]:
    return resize_smooth(mask.astype(np.float32), size) > _FULLY_COVERED


def _check_masks(photos: Sequence[Photo], source: Path) -> None:
    masks = [photo.mask_path for photo in photos if photo.mask_path is not None]
    if len(masks) == len(photos) and not any(read_mask(mask).any() for mask in masks):
        raise UserError(
            f"{source}: the masks of all {len(masks)} photos are black, as {masks[0]} is, so that "
            "no pixel counts. White pixels of a mask count: invert the masks, or remove them."
        )


def _wrong_size(path: Path, size: Size, expected: Size) -> UserError:
    return UserError(
        f"{path}: {size[1]}x{size[0]} pixels, but {expected[1]}x{expected[0]} go with its "
        "view. Bring it to that size, or remove it."
    )
