"""The BlendedMVS reader: a scene of ``blended_images``, ``cams`` and ``rendered_depth_maps``.

The layout of Yao et al., BlendedMVS, CVPR 2020, at low (768x576) or high (2048x1536) resolution;
the high-resolution archives repeat the scene's name as folders. ``cams/*_cam.txt`` are MVSNet's
camera files at the size of the images, each with its own depth range, whose unit differs from
scene to scene. The testing archives of MVSNet (DTU, Tanks and Temples) have ``images`` and
``cams`` with ``pair.txt`` beside them, and no depth. Pixel centres are taken to be at whole numbers
there, as in DTU's files of the same authors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from datasets.formats.checks import check_pinhole
from datasets.formats.image_files import describe_folder
from datasets.formats.images import DepthFile
from datasets.formats.mvsnet_files import (
    CAMERA_NAME,
    files_by_view,
    read_camera_file,
    read_pairs,
)
from datasets.formats.options import ReadOptions
from datasets.formats.photo_files import (
    Photo,
    photo_scene,
    read_sizes,
    shortened,
    warn_once,
)
from datasets.posed_scene import PosedScene
from utils.cameras import crop_intrinsics, invert_rigid
from utils.errors import UserError

IMAGES, CAMERAS, DEPTHS = "blended_images", "cams", "rendered_depth_maps"
_TEST_IMAGES = "images"
"""Of MVSNet's testing layout."""
_IMAGE_NAME = re.compile(r"(\d{1,18})\.(jpg|jpeg|png)", re.IGNORECASE)
_DEPTH_NAME = re.compile(r"(\d{1,18})\.pfm")
_MAX_NESTING = 3
_MIN_VIEWS = 2


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene of BlendedMVS, whose depth maps may be missing."""
    root = find_scene(folder)
    image_folder = root / (IMAGES if (root / IMAGES).is_dir() else _TEST_IMAGES)
    images = files_by_view(image_folder, _IMAGE_NAME)
    cameras = files_by_view(root / CAMERAS, CAMERA_NAME)
    depths = files_by_view(root / DEPTHS, _DEPTH_NAME)
    ids = _common_views(image_folder, images, cameras)
    files = [read_camera_file(cameras[view]) for view in ids]
    photos = []
    for view, size, file in zip(ids, read_sizes(images[view] for view in ids), files, strict=True):
        (focal_x, _, column), (_, focal_y, row) = file.intrinsics[:2].tolist()
        check_pinhole((focal_x, focal_y), (column, row), size, str(file.path))
        depth = DepthFile(depths[view]) if view in depths else None
        intrinsics = crop_intrinsics(file.intrinsics, -0.5, -0.5)
        photos.append(Photo(images[view], size, intrinsics, depth=depth))
    ranges = torch.tensor([[file.near, file.far] for file in files]).float()
    # Views are numbered from 0 in the order of their names, whatever numbers these have.
    place = {view: number for number, view in enumerate(ids)}
    return photo_scene(
        folder.resolve().name,
        root,
        photos,
        [invert_rigid(file.w2c) for file in files],
        options,
        near_far=(ranges[:, 0].min().item(), ranges[:, 1].max().item()),
        view_near_far=None if options.near_far else ranges,
        neighbours={
            place[view]: [place[other] for other in others if other in place]
            for view, others in _pairs(root).items()
            if view in place
        },
    )


def find_scene(folder: Path) -> Path:
    """Return the folder that holds the images; archives may nest it."""
    inner = folder
    for _ in range(_MAX_NESTING):
        testing = (inner / _TEST_IMAGES).is_dir() and (inner / CAMERAS).is_dir()
        if testing or (inner / IMAGES).is_dir():
            return inner
        inner = inner / folder.resolve().name
    raise UserError(
        f"{folder}: no {IMAGES}/ and {CAMERAS}/ of BlendedMVS; {describe_folder(folder)}."
    )


def _common_views(
    image_folder: Path, images: Mapping[int, Path], cameras: Mapping[int, Path]
) -> list[int]:
    root, both = image_folder.parent, sorted(images.keys() & cameras.keys())
    for what, lone in (
        ("images without a camera", images.keys() - cameras.keys()),
        ("cameras without an image", cameras.keys() - images.keys()),
    ):
        if lone:
            names = shortened([f"{view:08d}" for view in sorted(lone)])
            warn_once(f"{root}: {len(lone)} {what} are left out: {names}")
    if len(both) < _MIN_VIEWS:
        raise UserError(
            f"{root}: {len(images)} images in {image_folder.name}/ (00000000.jpg) and "
            f"{len(cameras)} cameras in {CAMERAS}/ (00000000_cam.txt) have {len(both)} views in "
            f"common; {_MIN_VIEWS} are needed."
        )
    return both


def _pairs(root: Path) -> dict[int, list[int]]:
    paths = [root / CAMERAS / "pair.txt", root / "pair.txt"]
    if path := next((path for path in paths if path.is_file()), None):
        return read_pairs(path)
    warn_once(f"{paths[0]}: is missing; neighbours are chosen by camera pose")
    return {}
