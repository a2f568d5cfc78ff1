"""The reader of scenes in the layout of instant-ngp and nerfstudio: photos with a JSON file."""

from __future__ import annotations

import os
from pathlib import Path

from datasets.formats.options import ReadOptions
from datasets.formats.photo_files import list_folder, photo_scene, shortened, warn_of_unused
from datasets.formats.transforms_file import frame_photos, read_transforms_file
from datasets.posed_scene import PosedScene
from utils.errors import UserError

_FILE_NAME = "transforms.json"


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene with a ``transforms.json``; pixels are read when asked for.

    Lens distortion is undone on reading, with the same focal length and principal point; pixels
    that a photo does not show then, or that its ``mask_path`` blackens, leave the mask.

    Args:
        folder: The JSON file, or the folder that holds ``transforms.json``.
        options: The range is in units of the camera positions, and goes before the file's ``near``
            and ``far``; without either it is estimated.
    """
    path = _find_file(folder)
    file = read_transforms_file(path)
    photos = frame_photos(file.frames)
    warn_of_unused((photo.path for photo in photos), path)
    return photo_scene(
        path.resolve().parent.name,
        path,
        photos,
        [frame.c2w for frame in file.frames],
        options,
        file.near_far,
        view_names=tuple(frame.file_path for frame in file.frames),
    )


def _find_file(given: Path) -> Path:
    if not given.is_dir():
        if not os.path.isfile(given):
            raise UserError(f"{given}: no such folder or file; give the folder of {_FILE_NAME}.")
        return given
    if (given / _FILE_NAME).is_file():
        return given / _FILE_NAME
    others = [entry.name for entry in list_folder(given) if entry.suffix == ".json"]
    advice = "it holds no JSON at all"
    if others:
        advice = f"give the path of one of {shortened(others)}"
    raise UserError(f"{given}: the folder holds no {_FILE_NAME}; {advice}.")
