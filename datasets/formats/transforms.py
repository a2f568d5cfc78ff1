"""The reader of scenes in the layout of instant-ngp and nerfstudio: photos with a JSON file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from datasets.formats.checks import choose_near_far
from datasets.formats.depth_maps import DepthFile
from datasets.formats.options import ReadOptions
from datasets.formats.photo_files import (
    Photo,
    PhotoReader,
    find_image,
    list_folder,
    read_sizes,
    reading_size,
    resized_cameras,
    warn_of_unused,
)
from datasets.formats.transforms_file import (
    Frame,
    find_frame_images,
    frame_lens,
    read_transforms_file,
)
from datasets.posed_scene import PosedScene
from utils.errors import UserError

_FILE_NAME = "transforms.json"
_NAMES_SHOWN = 3


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene with a ``transforms.json``; pixels are read when asked for.

    Lens distortion is undone on reading, with the same focal length and principal point; pixels
    that a photo does not show then, or that its ``mask_path`` blackens, leave the mask.

    Args:
        folder: The JSON file, or the folder that holds ``transforms.json``.
        options: The range is in units of the camera positions, and goes before the file's ``near``
            and ``far``; without either it is estimated.

    Raises:
        UserError: A file is missing or malformed, or images and cameras do not go together.
    """
    path = _find_file(folder)
    file = read_transforms_file(path)
    images, masks = find_frame_images(file.frames), _find_masks(file.frames)
    sizes = read_sizes(images)
    lenses = [frame_lens(frame, size) for frame, size in zip(file.frames, sizes, strict=True)]
    photos = tuple(map(Photo, images, sizes, lenses, masks, _find_depths(file.frames)))
    size = reading_size(images, sizes, options)
    intrinsics = [lens.intrinsics for lens in lenses]
    cameras = resized_cameras(intrinsics, [frame.c2w for frame in file.frames], sizes, size)
    near_far = choose_near_far(options.near_far, file.near_far, cameras, str(path))
    warn_of_unused(images, path)
    return PosedScene(
        name=path.resolve().parent.name,
        view_ids=tuple(range(len(photos))),
        view_names=tuple(frame.file_path for frame in file.frames),
        cameras=cameras,
        near_far=near_far,
        image_size=size,
        read_view=PhotoReader(photos, size),
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


def _find_masks(frames: Sequence[Frame]) -> list[Path | None]:
    masks: list[Path | None] = []
    for frame in frames:
        mask = None
        if frame.mask_path is not None:
            mask = find_image(frame.folder, frame.mask_path)
            if mask is None:
                raise UserError(f"{frame.source}: the mask {frame.mask_path[:80]!r} is missing.")
        masks.append(mask)
    read_sizes(mask for mask in masks if mask is not None)
    return masks


def _find_depths(frames: Sequence[Frame]) -> list[DepthFile | None]:
    depths: list[DepthFile | None] = []
    for frame in frames:
        path = None if frame.depth_path is None else frame.folder / frame.depth_path
        if path is not None and not os.path.isfile(path):
            raise UserError(
                f"{frame.source}: the depth map {str(frame.depth_path)[:80]!r} is missing. Restore "
                "it, or remove depth_file_path."
            )
        depths.append(None if path is None else DepthFile(path, frame.depth_scale))
    return depths
