"""The reader of scenes in the layout of instant-ngp and nerfstudio: photos with a JSON file."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from datasets.formats.depth_files import DepthFile
from datasets.formats.images import Size
from datasets.formats.near_far import estimate_near_far, given_near_far
from datasets.formats.photo_files import (
    IMAGE_SUFFIXES,
    Photo,
    PhotoReader,
    check_wanted_size,
    common_size,
    list_folder,
    list_images,
    read_sizes,
)
from datasets.formats.transforms_file import TransformsFile, frame_lens, read_transforms_file
from datasets.posed_scene import PosedScene
from utils.cameras import Cameras, resize_intrinsics
from utils.errors import UserError

_LOG = logging.getLogger(__name__)
_FILE_NAME = "transforms.json"
_NAMES_SHOWN = 3


def read_transforms(
    folder_or_json: str | Path,
    size: Size | None = None,
    *,
    near_far: tuple[float, float] | None = None,
) -> PosedScene:
    """Read a scene with a ``transforms.json``; pixels are read when asked for.

    Lens distortion is undone on reading, with the same focal length and principal point; pixels
    that a photo does not show then, or that its ``mask_path`` blackens, leave the mask.

    Args:
        folder_or_json: The JSON file, or the folder that holds ``transforms.json``.
        size: Height and width to resize to, whatever the aspect; None: as the photos are.
        near_far: Nearest and farthest z-depth, in units of the camera positions; before the
            file's ``near`` and ``far``. Without either they are estimated, see
            ``datasets.formats.near_far.estimate_near_far``.

    Raises:
        UserError: A file is missing or malformed, or images and cameras do not go together.
    """
    if size is not None:
        check_wanted_size(size)
    path = _find_file(Path(folder_or_json))
    file = read_transforms_file(path)
    if near_far is not None:
        known = given_near_far(*near_far, f"{path}, with the given range")
    else:
        known = None if file.near_far is None else given_near_far(*file.near_far, str(path))
    photos = _find_photos(file)
    images = [photo.path for photo in photos]
    image_size = common_size(images, [photo.size for photo in photos]) if size is None else size
    cameras = _cameras(file, photos, image_size)
    near_and_far = estimate_near_far(cameras, str(path)) if known is None else known
    _report_unlisted(images, path)
    return PosedScene(
        name=path.resolve().parent.name,
        view_ids=tuple(range(len(photos))),
        view_names=tuple(frame.file_path for frame in file.frames),
        cameras=cameras,
        near_far=near_and_far,
        image_size=image_size,
        read_view=PhotoReader(photos, image_size),
    )


def _find_file(given: Path) -> Path:
    if not given.is_dir():
        if not os.path.isfile(given):
            raise UserError(f"{given}: no such folder or file; give the folder of {_FILE_NAME}.")
        return given
    if (given / _FILE_NAME).is_file():
        return given / _FILE_NAME
    others = [entry.name for entry in list_folder(given) if entry.suffix == ".json"][:_NAMES_SHOWN]
    advice = f"give the path of one of {', '.join(others)}" if others else "it holds no JSON at all"
    raise UserError(f"{given}: the folder holds no {_FILE_NAME}; {advice}.")


def _find_photos(file: TransformsFile) -> tuple[Photo, ...]:
    """Find photo, mask and lens of every frame; only headers of images are read."""
    images, masks, depths = _find_images(file), _find_masks(file), _find_depths(file)
    sizes = read_sizes(images)
    return tuple(
        Photo(image, size, frame_lens(frame, size), mask, depth)
        for frame, image, size, mask, depth in zip(
            file.frames, images, sizes, masks, depths, strict=True
        )
    )


def _cameras(file: TransformsFile, photos: Sequence[Photo], size: Size) -> Cameras:
    intrinsics = [
        resize_intrinsics(
            frame_lens(frame, photo.size).intrinsics,
            size[1] / photo.size[1],
            size[0] / photo.size[0],
        )
        for frame, photo in zip(file.frames, photos, strict=True)
    ]
    c2w = [frame.c2w for frame in file.frames]
    return Cameras(torch.stack(intrinsics).float(), torch.stack(c2w).float())


def _find_images(file: TransformsFile) -> list[Path]:
    """Find the photo of every frame.

    Raises:
        UserError: Counts those that are missing and names the first.
    """
    found = [_find_image(file.path.parent, frame.file_path) for frame in file.frames]
    missing = [
        frame.file_path for frame, path in zip(file.frames, found, strict=True) if path is None
    ]
    if missing:
        names = ", ".join(repr(name[:80]) for name in missing[:_NAMES_SHOWN])
        raise UserError(
            f"{file.path}: the images of {len(missing)} of {len(found)} frames are missing "
            f"({names}{', ...' if len(missing) > _NAMES_SHOWN else ''}), looked for from "
            f"{file.path.parent}. Restore them, or remove their frames from the file."
        )
    images = [path for path in found if path is not None]
    by_image = dict(zip(images, file.frames, strict=True))
    if len(by_image) < len(images):
        twice = next(path for path in images if images.count(path) > 1)
        raise UserError(f"{file.path}: {twice} belongs to two frames; remove one.")
    return images


def _find_masks(file: TransformsFile) -> list[Path | None]:
    masks: list[Path | None] = []
    for frame in file.frames:
        mask = None
        if frame.mask_path is not None:
            mask = _find_image(file.path.parent, frame.mask_path)
            if mask is None:
                raise UserError(f"{frame.source}: the mask {frame.mask_path[:80]!r} is missing.")
        masks.append(mask)
    read_sizes(mask for mask in masks if mask is not None)
    return masks


def _find_depths(file: TransformsFile) -> list[DepthFile | None]:
    depths: list[DepthFile | None] = []
    for frame in file.frames:
        path = None if frame.depth_path is None else file.path.parent / frame.depth_path
        if path is not None and not os.path.isfile(path):
            raise UserError(
                f"{frame.source}: the depth map {str(frame.depth_path)[:80]!r} is missing. Restore "
                "it, or remove depth_file_path."
            )
        depths.append(None if path is None else DepthFile(path, frame.depth_scale))
    return depths


def _find_image(folder: Path, name: str) -> Path | None:
    """Return the file of a name that may lack its extension."""
    candidates = [folder / name, *(folder / f"{name}{suffix}" for suffix in IMAGE_SUFFIXES)]
    return next((path for path in candidates if os.path.isfile(path)), None)


def _report_unlisted(images: list[Path], path: Path) -> None:
    """Say how many photos have no camera: structure from motion often leaves some out."""
    listed = {image.resolve() for image in images}
    beside = [
        image for folder in {image.parent for image in images} for image in list_images(folder)
    ]
    unlisted = sorted(image.name for image in beside if image.resolve() not in listed)
    if unlisted:
        _LOG.warning(
            "%s: %d images beside those of its frames have no camera and are left out: %s%s",
            path,
            len(unlisted),
            ", ".join(unlisted[:_NAMES_SHOWN]),
            ", ..." if len(unlisted) > _NAMES_SHOWN else "",
        )
