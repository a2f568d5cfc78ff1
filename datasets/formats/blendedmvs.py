"""The BlendedMVS reader: a scene of ``blended_images``, ``cams`` and ``rendered_depth_maps``.

The layout of Yao et al., BlendedMVS, CVPR 2020, at low (768x576) or high (2048x1536) resolution;
the high-resolution archives repeat the scene's name as folders. ``cams/*_cam.txt`` are MVSNet's
camera files at the size of the images, each with its own depth range, whose unit differs from
scene to scene. Pixel centres are taken to be at whole numbers there, as in DTU's files of the same
authors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from datasets.formats.checks import check_pinhole, given_near_far
from datasets.formats.depth_maps import DepthFile
from datasets.formats.mvsnet_files import files_by_view, find_camera_files, read_camera_file
from datasets.formats.options import ReadOptions
from datasets.formats.photo_files import (
    Photo,
    PhotoReader,
    list_folder,
    read_sizes,
    reading_size,
    resized_cameras,
    shortened,
    warn_once,
)
from datasets.posed_scene import PosedScene
from datasets.scene_lists import read_pairs
from utils.cameras import crop_intrinsics, invert_rigid
from utils.errors import UserError

IMAGES, CAMERAS, DEPTHS = "blended_images", "cams", "rendered_depth_maps"
_IMAGE_NAME = re.compile(r"(\d{8})\.(jpg|png)", re.IGNORECASE)
_DEPTH_NAME = re.compile(r"(\d{8})\.pfm")
_MAX_NESTING = 3
_MIN_VIEWS = 2


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene of BlendedMVS; pixels and depth are read when asked for.

    Args:
        folder: Holds ``blended_images`` and ``cams``; depth maps may be missing.
        options: The range is in the scene's own unit; transparency plays no part.

    Raises:
        UserError: A file is missing or malformed, or images and cameras do not go together.
    """
    root = find_scene(folder)
    images = files_by_view(root / IMAGES, _IMAGE_NAME)
    cameras = find_camera_files(root / CAMERAS)
    depths = files_by_view(root / DEPTHS, _DEPTH_NAME)
    ids = _common_views(root, images, cameras)
    paths = [images[view] for view in ids]
    sizes = read_sizes(paths)
    size = reading_size(paths, sizes, options)
    files = [read_camera_file(cameras[view]) for view in ids]
    for file, file_size in zip(files, sizes, strict=True):
        (focal_x, _, column), (_, focal_y, row) = file.intrinsics[:2].tolist()
        check_pinhole((focal_x, focal_y), (column, row), file_size, str(file.path))
    maps = [DepthFile(depths[view]) if view in depths else None for view in ids]
    photos = [Photo(*row[:2], depth=row[2]) for row in zip(paths, sizes, maps, strict=True)]
    ranges = torch.tensor([[file.near, file.far] for file in files]).float()
    whole = options.near_far or (ranges[:, 0].min().item(), ranges[:, 1].max().item())
    # Views are numbered from 0 in the order of their names, whatever numbers these have.
    place = {view: number for number, view in enumerate(ids)}
    return PosedScene(
        name=folder.resolve().name,
        view_ids=tuple(range(len(ids))),
        view_names=tuple(path.name for path in paths),
        cameras=resized_cameras(
            [crop_intrinsics(file.intrinsics, -0.5, -0.5) for file in files],
            [invert_rigid(file.w2c) for file in files],
            sizes,
            size,
        ),
        near_far=given_near_far(*whole, str(root)),
        image_size=size,
        read_view=PhotoReader(tuple(photos), size),
        view_near_far=None if options.near_far else ranges,
        neighbours={
            place[view]: [place[other] for other in others if other in place]
            for view, others in _pairs(root / CAMERAS / "pair.txt").items()
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


def _common_views(root: Path, images: Mapping[int, Path], cameras: Mapping[int, Path]) -> list[int]:
    """Return the views that have image and camera; say what lacks the other."""
    both = sorted(images.keys() & cameras.keys())
    for what, lone in (
        ("images without a camera", images.keys() - cameras.keys()),
        ("cameras without an image", cameras.keys() - images.keys()),
    ):
        if lone:
            names = shortened([f"{view:08d}" for view in sorted(lone)])
            warn_once(f"{root}: {len(lone)} {what} are left out: {names}")
    if len(both) < _MIN_VIEWS:
        raise UserError(
            f"{root}: {len(images)} images in {IMAGES}/ and {len(cameras)} cameras in {CAMERAS}/ "
            f"(00000000_cam.txt) have {len(both)} views in common; {_MIN_VIEWS} are needed."
        )
    return both


def _pairs(path: Path) -> dict[int, list[int]]:
    if path.is_file():
        return read_pairs(path)
    warn_once(f"{path}: is missing; neighbours are chosen by camera pose")
    return {}
