"""The BlendedMVS reader: a scene of ``blended_images``, ``cams`` and ``rendered_depth_maps``.

The layout of Yao et al., BlendedMVS, CVPR 2020, at low (768x576) or high (2048x1536) resolution;
the high-resolution archives repeat the scene's name as folders. ``cams/*_cam.txt`` are MVSNet's
camera files at the size of the images, each with its own depth range, whose unit differs from
scene to scene. Pixel centres are taken to be at whole numbers there, as in DTU's files of the same
authors.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from datasets.formats.depth_files import DepthFile
from datasets.formats.dtu_cameras import CameraFile, read_camera_file
from datasets.formats.images import Size
from datasets.formats.near_far import given_near_far
from datasets.formats.photo_files import (
    Photo,
    PhotoReader,
    check_wanted_size,
    common_size,
    list_folder,
    read_sizes,
)
from datasets.posed_scene import PosedScene
from datasets.view_selection import read_pairs
from utils.cameras import Cameras, crop_intrinsics, invert_rigid, resize_intrinsics
from utils.errors import UserError

IMAGES, CAMERAS, DEPTHS = "blended_images", "cams", "rendered_depth_maps"
_LOG = logging.getLogger(__name__)
_IMAGE_NAME = re.compile(r"(\d{8})\.(jpg|png)")
_CAMERA_NAME = re.compile(r"(\d{8})_cam\.txt")
_DEPTH_NAME = re.compile(r"(\d{8})\.pfm")
_MAX_NESTING = 3
_MIN_VIEWS = 2
_MAX_CENTER_DEVIATION = 0.25
_NAMES_SHOWN = 3


def read_blendedmvs(folder: str | Path, size: Size | None = None) -> PosedScene:
    """Read a scene of BlendedMVS; pixels and depth are read when asked for.

    Args:
        folder: Holds ``blended_images`` and ``cams``; depth maps may be missing.
        size: Height and width to resize to, whatever the aspect; None: as the images are.

    Raises:
        UserError: A file is missing or malformed, or images and cameras do not go together.
    """
    given = Path(folder)
    if size is not None:
        check_wanted_size(size)
    root = find_scene(given)
    images, cameras = _files(root / IMAGES, _IMAGE_NAME), _files(root / CAMERAS, _CAMERA_NAME)
    depths = _files(root / DEPTHS, _DEPTH_NAME)
    ids = _common_views(root, images, cameras)
    sizes = read_sizes(images[view] for view in ids)
    file_size = common_size([images[view] for view in ids], sizes)
    image_size = file_size if size is None else size
    files = [read_camera_file(cameras[view]) for view in ids]
    ranges = torch.tensor([[file.near, file.far] for file in files]).float()
    photos = tuple(
        Photo(images[view], file_size, depth=DepthFile(depths[view]) if view in depths else None)
        for view in ids
    )
    near_far = given_near_far(ranges[:, 0].min().item(), ranges[:, 1].max().item(), str(root))
    # Views are numbered from 0 in the order of their names, whatever numbers these have.
    place = {view: number for number, view in enumerate(ids)}
    pairs = _pairs(root / CAMERAS / "pair.txt")
    return PosedScene(
        name=given.resolve().name,
        view_ids=tuple(range(len(ids))),
        view_names=tuple(images[view].name for view in ids),
        cameras=_cameras(files, file_size, image_size),
        near_far=near_far,
        image_size=image_size,
        read_view=PhotoReader(photos, image_size),
        view_near_far=ranges,
        neighbours={
            place[view]: [place[other] for other in others if other in place]
            for view, others in pairs.items()
            if view in place
        },
    )


def find_scene(folder: Path) -> Path:
    """Return the folder that holds the images; archives may nest it.

    Raises:
        UserError: There is none.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder. A scene of BlendedMVS holds {IMAGES}, {CAMERAS}."
        )
    inner = folder
    for _ in range(_MAX_NESTING):
        if (inner / IMAGES).is_dir():
            return inner
        inner = inner / folder.resolve().name
    found = ", ".join(entry.name for entry in list_folder(folder)[:8]) or "nothing"
    raise UserError(f"{folder}: holds no {IMAGES}/ of BlendedMVS; it holds {found}.")


def _files(folder: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    entries = [(pattern.fullmatch(path.name), path) for path in list_folder(folder)]
    return {int(match[1]): path for match, path in entries if match}


def _common_views(root: Path, images: Mapping[int, Path], cameras: Mapping[int, Path]) -> list[int]:
    """Return the views that have image and camera; say what lacks the other."""
    both = sorted(images.keys() & cameras.keys())
    for what, lone in (
        ("images without a camera", images.keys() - cameras.keys()),
        ("cameras without an image", cameras.keys() - images.keys()),
    ):
        if lone:
            names = [f"{view:08d}" for view in sorted(lone)]
            more = ", ..." if len(names) > _NAMES_SHOWN else ""
            shown = ", ".join(names[:_NAMES_SHOWN])
            _LOG.warning("%s: %d %s are left out: %s%s", root, len(names), what, shown, more)
    if len(both) < _MIN_VIEWS:
        raise UserError(
            f"{root}: {len(images)} images in {IMAGES}/ and {len(cameras)} cameras in {CAMERAS}/ "
            f"(00000000_cam.txt) have {len(both)} views in common; {_MIN_VIEWS} are needed."
        )
    return both


def _cameras(files: Sequence[CameraFile], file_size: Size, size: Size) -> Cameras:
    intrinsics = torch.stack([_intrinsics(file, file_size) for file in files])
    scaled = resize_intrinsics(intrinsics, size[1] / file_size[1], size[0] / file_size[0])
    c2w: Float[Tensor, "view 4 4"] = invert_rigid(torch.stack([file.w2c for file in files]))
    return Cameras(scaled.float(), c2w.float())


def _intrinsics(file: CameraFile, size: Size) -> Float64[Tensor, "3 3"]:
    column, row = file.intrinsics[0, 2].item(), file.intrinsics[1, 2].item()
    deviation = max(abs(column / size[1] - 0.5), abs(row / size[0] - 0.5))
    if deviation > _MAX_CENTER_DEVIATION:
        raise UserError(
            f"{file.path}: the principal point ({column:g}, {row:g}) is not near the centre of an "
            f"image of {size[1]}x{size[0]}. Cameras of the low-resolution set do not go with "
            "images of the high-resolution set."
        )
    return crop_intrinsics(file.intrinsics, -0.5, -0.5)


def _pairs(path: Path) -> dict[int, list[int]]:
    if path.is_file():
        return read_pairs(path)
    _LOG.warning("%s: is missing; neighbours are chosen by camera pose", path)
    return {}
