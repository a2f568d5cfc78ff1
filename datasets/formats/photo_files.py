"""Photographs on disk: finding them, and reading them as views of one size."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from datasets.formats.checks import MOST_FAR, is_shrunk_copy
from datasets.formats.decoding import (
    over_background,
    read_channels,
    read_header,
    read_image_size,
)
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
from datasets.formats.masks import MaskFile, dynamic_mask_of, resized_mask
from datasets.formats.options import ReadOptions, Size
from datasets.posed_scene import PosedScene, ViewPixels
from utils.cameras import Cameras, recentred, resize_intrinsics
from utils.errors import UserError

_NAMES_SHOWN = 3
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Photo:
    """One image file and what is known of it."""

    path: Path
    size: Size
    intrinsics: Float64[Tensor, "3 3"]
    lens: Lens | None = None
    masks: tuple[MaskFile, ...] = ()
    """Pixels count that all of them count."""
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
        channels = read_channels(photo.path, True, upright=photo.upright, least=self.size)
        image = over_background(channels, self.background)
        size: Size = (image.shape[0], image.shape[1])
        # What is transparent everywhere shows nothing; else the background belongs to the picture.
        mask = np.full(size, channels.shape[2] == 3 or channels[..., 3].any())
        for file in photo.masks:
            of_file = file.read()
            of_mask = (of_file.shape[0], of_file.shape[1])
            if not is_shrunk_copy(of_mask, photo.size):
                raise _wrong_size(file.path, of_mask, photo.size)
            mask &= resized_mask(of_file, size)
        depth = np.zeros(size, np.float32)
        if photo.depth is not None:
            depth = resize_nearest(read_depth(photo.depth), size)
            if not depth.any():
                folder = photo.depth.path.parent
                warn_once(f"{folder}: a depth map without any depth above 0 counts as none")
        if photo.lens is not None and photo.lens.distorts:
            lens = photo.lens.resized(size[1] / photo.size[1], size[0] / photo.size[0])
            image, mask = undistort(image, mask, lens)
            depth = undistort_nearest(depth, lens)
        return ViewPixels(
            image=resize_smooth(image, self.size),
            depth=resize_nearest(depth, self.size),
            mask=resized_mask(mask, self.size),
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
    photos = _with_dynamic_masks(photos, source)
    read_view = PhotoReader(tuple(photos), size, options.background)
    _check_counted(read_view, source)
    poses, origin = recentred(torch.stack(list(c2w)))
    small = ReadOptions(longest_side=MATCHED_SIDE).target_size(sizes[0])
    reader = PhotoReader(tuple(photos), small, options.background)
    if near_far and not options.near_far and 0 < near_far[0] * MOST_FAR < near_far[1]:
        near, far = near_far
        warn_once(f"{source}: near {near:.3g} and far {far:.3g} are no range; they are measured")
        near_far = known["view_near_far"] = None
    views = SmallViews(Cameras(_intrinsics(photos, small), poses), reader)
    fields: dict[str, Any] = {
        "origin": origin,
        "view_names": tuple(path.name for path in paths),
        "image_files": tuple(paths),
        "near_far": choose_near_far(options.near_far, near_far, views, source),
        "read_view": read_view,
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


def warn_of_unused(used: Iterable[Path], source: Path, masks: Sequence[Path] = ()) -> None:
    """Say how many photos have no camera: structure from motion often leaves some out."""
    used = list(used)
    known = {path.resolve() for path in (*used, *masks)}
    beside = [path for folder in {path.parent for path in used} for path in list_images(folder)]
    unused = sorted(path.name for path in beside if path.is_file() and path.resolve() not in known)
    if unused:
        warn_once(
            f"{source}: {len(unused)} images beside those that it names have no camera and are "
            f"left out: {shortened(unused)}"
        )


@lru_cache(maxsize=4096)
def warn_once(message: str) -> None:
    """Log a warning, but not again when the scene is opened again."""
    _LOG.warning("%s", message)


def warn_of_unused_keys(keys: Iterable[str], path: Path) -> None:
    """Name what a file holds that is not used, once for all scenes of a data set."""
    if names := shortened(sorted(keys)):
        holders = _holders(names, path.resolve().parent.parent)
        if not holders:
            beside = "scenes beside it that hold the same are not named"
            _LOG.warning("%s: holds what is not used: %s; %s", path, names, beside)
        holders.add(path)


@lru_cache(maxsize=4096)
def _holders(names: str, root: Path) -> set[Path]:
    """Return the files of a data set in which such names were met, to be added to."""
    return set()


def shortened(names: Sequence[str]) -> str:
    """Join the first few names."""
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def _with_dynamic_masks(photos: Sequence[Photo], source: Path) -> list[Photo]:
    """Add the masks of moving things that lie beside the photos, as instant-ngp has them."""
    found = [dynamic_mask_of(photo.path) for photo in photos]
    if names := [mask.path.name for mask in found if mask is not None]:
        warn_once(f"{source}: {len(names)} masks of moving things are used: {shortened(names)}")
    return [
        photo if mask is None else replace(photo, masks=(*photo.masks, mask))
        for photo, mask in zip(photos, found, strict=True)
    ]


def _check_counted(reader: PhotoReader, source: Path) -> None:
    """Refuse a scene without any pixel that counts; mostly the first photo shows that it has."""
    for view, photo in enumerate(reader.photos):
        # Most photos have neither; nothing is decoded for them.
        if not photo.masks and not read_header(photo.path).transparent:
            return
        if reader(view).mask.any():
            return
    count, photo = len(reader.photos), reader.photos[0]
    raise UserError(
        f"{source}: no pixel of its {count} photos counts. "
        + (
            f"Their masks leave none, as {photo.masks[0].path} does: {photo.masks[0].advice}."
            if photo.masks
            else f"They are transparent everywhere, as {photo.path} is: save them without alpha, "
            "or with alpha above 0 where something is to be seen."
        )
    )


def _wrong_size(path: Path, size: Size, expected: Size) -> UserError:
    return UserError(
        f"{path}: {size[1]}x{size[0]} pixels, but {expected[1]}x{expected[0]} go with its "
        "view. Bring it to that size, or remove it."
    )
