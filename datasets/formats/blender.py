"""The reader of NeRF's synthetic scenes: ``transforms_{train,val,test}.json`` and RGBA images.

The layout of Mildenhall et al., NeRF, ECCV 2020: OpenGL axes, one ``camera_angle_x``, images named
without their suffix. Blender's images cover whole pixels, so the principal point is the middle of
the image in the house convention.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.formats.images import Size
from datasets.formats.near_far import estimate_near_far, given_near_far
from datasets.formats.photo_files import (
    IMAGE_SUFFIXES,
    Photo,
    PhotoReader,
    check_wanted_size,
    common_size,
    list_folder,
    read_sizes,
)
from datasets.formats.transforms_file import Frame, TransformsFile, frame_lens, read_transforms_file
from datasets.posed_scene import PosedScene
from datasets.view_selection import Split
from utils.cameras import Cameras, resize_intrinsics
from utils.errors import UserError

SPLITS: tuple[Split, ...] = ("train", "val", "test")
_SPHERE_RADIUS = (3.5, 4.6)
"""NeRF's own scenes are seen from a sphere of radius 4.03; they are rendered from 2 to 6."""
_SPHERE_RANGE = (2.0, 6.0)
_NUMBERS = re.compile(r"(\d+)")
_MAX_DIGITS = 20
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class _View:
    frame: Frame
    image: Path


def read_blender(
    folder: str | Path,
    size: Size | None = None,
    *,
    background: float = 1.0,
    near_far: tuple[float, float] | None = None,
) -> PosedScene:
    """Read a scene of NeRF's synthetic kind; pixels are read when asked for.

    Views count through training, validation and test images, each in the order of their numbers;
    ``splits`` of the result says which are which.

    Args:
        folder: Holds ``transforms_train.json``; the other two may be missing.
        size: Height and width to resize to; None: as the images are.
        background: Grey behind transparent pixels: 1 white, 0 black.
        near_far: Nearest and farthest z-depth; None: 2 and 6 for NeRF's own scenes, else the
            file's ``near`` and ``far``, else an estimate.

    Raises:
        UserError: A file is missing or malformed, or images and cameras do not go together.
    """
    root = Path(folder)
    if size is not None:
        check_wanted_size(size)
    files: dict[Split, TransformsFile] = {
        split: file for split in SPLITS if (file := _read_split(root, split))
    }
    views: dict[Split, list[_View]] = {split: _find_views(file) for split, file in files.items()}
    together = [view for found in views.values() for view in found]
    _check_distinct(together, root)
    images = [view.image for view in together]
    sizes = read_sizes(images)
    image_size = common_size(images, sizes) if size is None else size
    photos = tuple(map(Photo, images, sizes))
    cameras = _cameras(together, photos, image_size)
    return PosedScene(
        name=root.resolve().name,
        view_ids=tuple(range(len(together))),
        view_names=tuple(view.frame.file_path for view in together),
        cameras=cameras,
        near_far=_near_far(near_far, files["train"], cameras),
        image_size=image_size,
        read_view=PhotoReader(photos, image_size, background),
        splits=_splits(views),
    )


def _read_split(root: Path, split: Split) -> TransformsFile | None:
    path = root / f"transforms_{split}.json"
    if path.is_file():
        return read_transforms_file(path)
    if split != "train":
        return None
    found = ", ".join(entry.name for entry in list_folder(root)[:8]) or "nothing"
    raise UserError(
        f"{path}: the file is missing. A scene of NeRF's synthetic kind holds "
        f"transforms_train.json; this folder holds {found}."
    )


def _find_views(file: TransformsFile) -> list[_View]:
    frames = sorted(file.frames, key=lambda frame: _by_number(frame.file_path))
    found = [(frame, _find_image(file.path.parent, frame.file_path)) for frame in frames]
    missing = [frame.file_path for frame, image in found if image is None]
    if missing:
        raise UserError(
            f"{file.path}: the images of {len(missing)} of {len(found)} frames are missing "
            f"({', '.join(missing[:_NAMES_SHOWN])}). Restore them, or remove their frames."
        )
    return [_View(frame, image) for frame, image in found if image is not None]


def _find_image(folder: Path, name: str) -> Path | None:
    candidates = [*(folder / f"{name}{suffix}" for suffix in IMAGE_SUFFIXES), folder / name]
    return next((path for path in candidates if path.is_file()), None)


def _splits(views: Mapping[Split, Sequence[_View]]) -> dict[Split, tuple[int, ...]]:
    splits: dict[Split, tuple[int, ...]] = {}
    first = 0
    for split, found in views.items():
        splits[split] = tuple(range(first, first + len(found)))
        first += len(found)
    return splits


def _check_distinct(views: list[_View], root: Path) -> None:
    images = [view.image.resolve() for view in views]
    if len(set(images)) < len(images):
        twice = next(image for image in images if images.count(image) > 1)
        raise UserError(f"{root}: {twice} belongs to two frames; splits must not share images.")


def _cameras(views: list[_View], photos: tuple[Photo, ...], size: Size) -> Cameras:
    intrinsics, c2w = [], []
    for view, photo in zip(views, photos, strict=True):
        lens = frame_lens(view.frame, photo.size)
        if lens.distorts:
            raise UserError(f"{view.frame.source}: rendered images have no distortion.")
        scale = size[1] / photo.size[1], size[0] / photo.size[0]
        intrinsics.append(resize_intrinsics(lens.intrinsics, *scale))
        c2w.append(view.frame.c2w)
    return Cameras(torch.stack(intrinsics).float(), torch.stack(c2w).float())


def _near_far(
    given: tuple[float, float] | None, file: TransformsFile, cameras: Cameras
) -> Float[Tensor, " 2"]:
    if given is not None:
        return given_near_far(*given, f"{file.path}, with the given range")
    if file.near_far is not None:
        return given_near_far(*file.near_far, str(file.path))
    radius = cameras.centers.norm(dim=-1).median().item()
    if _SPHERE_RADIUS[0] <= radius <= _SPHERE_RADIUS[1]:
        return given_near_far(*_SPHERE_RANGE, str(file.path))
    return estimate_near_far(cameras, str(file.path))


def _by_number(name: str) -> list[tuple[int, str]]:
    """Let r_2 come before r_10."""
    return [
        (int(part), "") if part.isdecimal() and len(part) < _MAX_DIGITS else (-1, part)
        for part in _NUMBERS.split(name)
        if part
    ]
