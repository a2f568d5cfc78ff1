"""Photographs as the views of a scene: undistorted, masked and of one size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from datasets.formats.checks import is_shrunk_copy
from datasets.formats.depth_range import MATCHED_SIDE, MAX_DEPTH_RATIO, choose_near_far
from datasets.formats.images.decoding import (
    over_background,
    read_channels,
    read_header,
    read_mask,
)
from datasets.formats.images.depth_maps import DepthFile, read_depth
from datasets.formats.images.image_files import DYNAMIC_MASK_PREFIX, list_images
from datasets.formats.images.lenses import Lens, undistort, undistort_nearest
from datasets.formats.images.resizing import resize_mask, resize_nearest, resize_smooth
from datasets.formats.messages import join_names, warn_once
from datasets.formats.options import ReadOptions, Size
from datasets.posed_scene import PosedScene, ViewPixels
from utils.cameras import Cameras, recentred, resize_intrinsics
from utils.errors import UserError


@dataclass(frozen=True)
class MaskFile:
    """A mask image; white pixels are valid, or invalid in masks of moving objects."""

    path: Path
    white_is_invalid: bool = False

    def read(self) -> Bool[np.ndarray, "height width"]:
        """Return which pixels are valid."""
        white = read_mask(self.path)
        return ~white if self.white_is_invalid else white

    @property
    def advice(self) -> str:
        """Remedy for a mask without a valid pixel."""
        if self.white_is_invalid:
            return "white pixels of a dynamic mask are invalid; invert these masks or remove them"
        return "white pixels of a mask are valid; invert these masks or remove them"


@dataclass(frozen=True)
class Photo:
    """An image file with its camera, masks and depth map."""

    path: Path
    size: Size
    intrinsics: Float64[Tensor, "3 3"]
    lens: Lens | None = None
    masks: tuple[MaskFile, ...] = ()
    """A pixel is valid if all masks say so."""
    depth: DepthFile | None = None
    upright: bool = True
    """Whether ``size`` and the camera refer to the image after EXIF rotation."""


@dataclass(frozen=True)
class PhotoReader:
    """Reads photos as undistorted views of one size; view ids are indices of ``photos``."""

    photos: tuple[Photo, ...]
    size: Size
    background: float
    """Grey value behind transparent pixels."""

    def __call__(self, view: int) -> ViewPixels:
        """Read one view."""
        photo = self.photos[view]
        header = read_header(photo.path)
        stored = header.upright if photo.upright else header.stored
        if stored != photo.size:
            raise _wrong_size(photo.path, stored, photo.size)
        channels = read_channels(
            photo.path, keep_alpha=True, upright=photo.upright, min_size=self.size
        )
        image = over_background(channels, self.background)
        size: Size = (image.shape[0], image.shape[1])
        # Transparent pixels are valid background, unless the whole image is transparent.
        mask = np.full(size, channels.shape[2] == 3 or channels[..., 3].any())
        for file in photo.masks:
            valid = file.read()
            mask_size = (valid.shape[0], valid.shape[1])
            if not is_shrunk_copy(mask_size, photo.size):
                raise _wrong_size(file.path, mask_size, photo.size)
            mask &= resize_mask(valid, size)
        depth = np.zeros(size, np.float32)
        if photo.depth is not None:
            depth = resize_nearest(read_depth(photo.depth), size)
            if not depth.any():
                folder = photo.depth.path.parent
                warn_once(f"{folder}: a depth map without any depth above 0 is not used")
        if photo.lens is not None and photo.lens.distorts:
            lens = photo.lens.resized(size[1] / photo.size[1], size[0] / photo.size[0])
            image, mask = undistort(image, mask, lens)
            depth = undistort_nearest(depth, lens)
        return ViewPixels(
            image=resize_smooth(image, self.size),
            depth=resize_nearest(depth, self.size),
            mask=resize_mask(mask, self.size),
        )


def oriented_sizes(
    paths: Sequence[Path],
    camera_sizes: Sequence[Size | None],
    source: Path,
    apply_exif: bool = True,
) -> list[tuple[Size, bool]]:
    """Return the size of each photo, and whether that is after EXIF rotation.

    Some programs apply EXIF rotation and others do not: the image size that a camera states
    decides. Where it is unknown or fits both, ``apply_exif`` decides.
    """
    sizes, rotated = [], []
    for path, stated in zip(paths, camera_sizes, strict=True):
        header, upright = read_header(path), apply_exif
        if stated is not None and header.upright != header.stored:
            fits = is_shrunk_copy(header.upright, stated), is_shrunk_copy(header.stored, stated)
            upright = fits[0] if fits[0] != fits[1] else apply_exif
        sizes.append((header.upright if upright else header.stored, upright))
        if header.rotated:
            rotated.append((path.name, upright))
    for upright, action in (
        (True, "this is applied"),
        (False, "this is ignored, as by the cameras"),
    ):
        if names := [name for name, applied in rotated if applied == upright]:
            warn_once(f"{source}: EXIF rotates {len(names)} photos; {action}: {join_names(names)}")
    return sizes


def common_size(paths: Iterable[Path], sizes: Iterable[Size]) -> Size:
    """Return the size of all images; refuse images of different sizes."""
    (first_path, first), *others = zip(paths, sizes, strict=True)
    for path, size in others:
        if size != first:
            smaller = min(size, first)
            raise UserError(
                f"{path}: the image is {size[1]}x{size[0]}, but {first_path} is "
                f"{first[1]}x{first[0]}. Choose one size for all, for example "
                f"--image_size {smaller[0]} {smaller[1]}."
            )
    return first


def photo_scene(
    name: str,
    source: Path,
    photos: Sequence[Photo],
    c2w: Sequence[Float64[Tensor, "4 4"]],
    options: ReadOptions,
    near_far: tuple[float, float] | None = None,
    **fields: Any,  # noqa: ANN401
) -> PosedScene:
    """Build a scene whose photos are all read at one size.

    ``source`` is the file or folder of the cameras, for messages. ``near_far`` is the depth range
    of the files, None if they have none. ``fields`` are further fields of ``PosedScene``.
    """
    paths, sizes = [photo.path for photo in photos], [photo.size for photo in photos]
    if not options.allows_several_sizes:
        common_size(paths, sizes)
    size = options.target_size(sizes[0])
    photos = _with_dynamic_masks(photos, source)
    reader = PhotoReader(tuple(photos), size, options.background)
    _check_valid_pixels(reader, source)
    if near_far and not options.near_far and 0 < near_far[0] * MAX_DEPTH_RATIO < near_far[1]:
        near, far = near_far
        warn_once(f"{source}: near {near:.3g} is too small for far {far:.3g}; both are measured")
        near_far = fields["view_near_far"] = None
    poses, origin = recentred(torch.stack(list(c2w)))
    small = ReadOptions(longest_side=MATCHED_SIDE).target_size(sizes[0])
    defaults: dict[str, Any] = {
        "origin": origin,
        "view_names": tuple(path.name for path in paths),
        "image_files": tuple(paths),
        "near_far": choose_near_far(
            options.near_far,
            near_far,
            Cameras(_resized_intrinsics(photos, small), poses),
            replace(reader, size=small),
            source,
        ),
    }
    return PosedScene(
        name,
        tuple(range(len(photos))),
        cameras=Cameras(_resized_intrinsics(photos, size), poses),
        image_size=size,
        read_view=reader,
        **(defaults | fields),
    )


def warn_of_unused_photos(used: Iterable[Path], source: Path, masks: Sequence[Path] = ()) -> None:
    """Warn of photos without a camera beside those used; structure from motion often drops some."""
    used = list(used)
    known = {path.resolve() for path in (*used, *masks)}
    beside = [path for folder in {path.parent for path in used} for path in list_images(folder)]
    unused = sorted(path.name for path in beside if path.is_file() and path.resolve() not in known)
    if unused:
        warn_once(
            f"{source}: {len(unused)} images beside the others have no camera and are left "
            f"out: {join_names(unused)}"
        )


def _resized_intrinsics(photos: Sequence[Photo], size: Size) -> Float[Tensor, "view 3 3"]:
    intrinsics = [
        resize_intrinsics(photo.intrinsics, size[1] / photo.size[1], size[0] / photo.size[0])
        for photo in photos
    ]
    return torch.stack(intrinsics).float()


def _with_dynamic_masks(photos: Sequence[Photo], source: Path) -> list[Photo]:
    """Add the masks of moving objects beside the photos: ``dynamic_mask_a.png`` of ``a.jpg``."""
    result, names = [], []
    for photo in photos:
        path = photo.path.with_name(f"{DYNAMIC_MASK_PREFIX}{photo.path.stem}.png")
        if path.is_file():
            photo = replace(photo, masks=(*photo.masks, MaskFile(path, white_is_invalid=True)))
            names.append(path.name)
        result.append(photo)
    if names:
        warn_once(f"{source}: {len(names)} masks of moving objects are used: {join_names(names)}")
    return result


def _check_valid_pixels(reader: PhotoReader, source: Path) -> None:
    """Refuse a scene without any valid pixel; most scenes pass at their first photo."""
    for view, photo in enumerate(reader.photos):
        # Without masks and alpha all pixels are valid, which the header shows.
        if not photo.masks and not read_header(photo.path).has_alpha:
            return
        if reader(view).mask.any():
            return
    first = reader.photos[0]
    if first.masks:
        reason = f"Their masks leave none, as {first.masks[0].path} does: {first.masks[0].advice}."
    else:
        reason = (
            f"They are transparent everywhere, as {first.path} is: save them without alpha, or "
            "with alpha above 0 where something is visible."
        )
    raise UserError(f"{source}: no pixel of its {len(reader.photos)} photos is valid. {reason}")


def _wrong_size(path: Path, size: Size, expected: Size) -> UserError:
    return UserError(
        f"{path}: {size[1]}x{size[0]} pixels, but {expected[1]}x{expected[0]} go with its "
        "view. Bring it to that size, or remove it."
    )
