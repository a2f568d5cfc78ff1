"""Reader of BlendedMVS scenes: ``blended_images``, ``cams`` and ``rendered_depth_maps``.

The layout of Yao et al., BlendedMVS, CVPR 2020, at low (768x576) or high (2048x1536) resolution;
the high-resolution archives repeat the scene's name as folders. ``cams/*_cam.txt`` are MVSNet's
camera files at the size of the images, each with its own depth range; the unit differs from scene
to scene. MVSNet's testing archives (DTU, Tanks and Temples) have ``images`` and ``cams`` with
``pair.txt`` beside them, and no depth maps. Pixel centres are taken to be at integers in these
files, as in DTU's files of the same authors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from datasets.formats.checks import check_pinhole
from datasets.formats.images.decoding import read_image_size
from datasets.formats.images.depth_maps import DepthFile
from datasets.formats.images.image_files import describe_folder
from datasets.formats.images.photos import Photo, photo_scene
from datasets.formats.messages import join_names, warn_once
from datasets.formats.mvsnet_files import (
    CAMERA_NAME,
    files_by_view,
    read_camera_file,
    read_pairs,
)
from datasets.formats.options import ReadOptions
from datasets.posed_scene import PosedScene
from utils.cameras import crop_intrinsics, invert_rigid
from utils.errors import UserError

_IMAGES, _CAMERAS, _DEPTHS = "blended_images", "cams", "rendered_depth_maps"
_TEST_IMAGES = "images"
_IMAGE_NAME = re.compile(r"(\d{1,18})\.(jpg|jpeg|png)", re.IGNORECASE)
_DEPTH_NAME = re.compile(r"(\d{1,18})\.pfm")
_MAX_NESTING = 3
_MIN_VIEWS = 2


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene; its depth maps may be missing.

    Views are numbered from 0 in the order of their names.
    """
    root = _find_root(folder)
    image_folder = root / (_IMAGES if (root / _IMAGES).is_dir() else _TEST_IMAGES)
    images = files_by_view(image_folder, _IMAGE_NAME)
    cameras = files_by_view(root / _CAMERAS, CAMERA_NAME)
    depths = files_by_view(root / _DEPTHS, _DEPTH_NAME)
    numbers = _common_views(image_folder, images, cameras)
    files = [read_camera_file(cameras[number]) for number in numbers]
    photos = []
    for number, file in zip(numbers, files, strict=True):
        size = read_image_size(images[number])
        (focal_x, _, column), (_, focal_y, row) = file.intrinsics[:2].tolist()
        check_pinhole((focal_x, focal_y), (column, row), size, str(file.path))
        depth = DepthFile(depths[number]) if number in depths else None
        intrinsics = crop_intrinsics(file.intrinsics, -0.5, -0.5)
        photos.append(Photo(images[number], size, intrinsics, depth=depth))
    ranges = torch.tensor([[file.near, file.far] for file in files]).float()
    views = {number: view for view, number in enumerate(numbers)}
    return photo_scene(
        folder.resolve().name,
        root,
        photos,
        [invert_rigid(file.w2c) for file in files],
        options,
        near_far=(ranges[:, 0].min().item(), ranges[:, 1].max().item()),
        view_near_far=None if options.near_far else ranges,
        neighbours={
            views[number]: [views[other] for other in others if other in views]
            for number, others in _read_pairs(root).items()
            if number in views
        },
    )


def _find_root(folder: Path) -> Path:
    """Return the folder that holds the images, which archives may nest."""
    root = folder
    for _ in range(_MAX_NESTING):
        is_test_layout = (root / _TEST_IMAGES).is_dir() and (root / _CAMERAS).is_dir()
        if is_test_layout or (root / _IMAGES).is_dir():
            return root
        root = root / folder.resolve().name
    raise UserError(
        f"{folder}: no {_IMAGES}/ and {_CAMERAS}/ of BlendedMVS; {describe_folder(folder)}."
    )


def _common_views(
    image_folder: Path, images: Mapping[int, Path], cameras: Mapping[int, Path]
) -> list[int]:
    root, common = image_folder.parent, sorted(images.keys() & cameras.keys())
    for kind, unpaired in (
        ("images without a camera", images.keys() - cameras.keys()),
        ("cameras without an image", cameras.keys() - images.keys()),
    ):
        if unpaired:
            names = join_names([f"{number:08d}" for number in sorted(unpaired)])
            warn_once(f"{root}: {len(unpaired)} {kind} are left out: {names}")
    if len(common) < _MIN_VIEWS:
        raise UserError(
            f"{root}: {len(images)} images in {image_folder.name}/ (00000000.jpg) and "
            f"{len(cameras)} cameras in {_CAMERAS}/ (00000000_cam.txt) have {len(common)} views in "
            f"common; {_MIN_VIEWS} are needed."
        )
    return common


def _read_pairs(root: Path) -> dict[int, list[int]]:
    paths = [root / _CAMERAS / "pair.txt", root / "pair.txt"]
    if path := next((path for path in paths if path.is_file()), None):
        return read_pairs(path)
    warn_once(f"{paths[0]}: is missing; neighbours are chosen by camera pose")
    return {}
