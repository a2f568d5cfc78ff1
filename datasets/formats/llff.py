"""The LLFF reader: a folder with ``poses_bounds.npy`` and its images, often shrunk by a factor.

Each row of ``poses_bounds.npy`` holds a 3x5 matrix ``[R | t | h w f]`` and the nearest and
farthest depth that the view sees (Mildenhall et al., Local Light Field Fusion, SIGGRAPH 2019).
``R`` is camera-to-world with axes down, right, backwards; ``h w f`` speak of the full image, the
principal point is its centre. Images go with rows in the order of their names.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from datasets.formats.images import Size
from datasets.formats.near_far import given_near_far
from datasets.formats.photo_files import (
    Photo,
    PhotoReader,
    check_wanted_size,
    choose_image_folder,
    common_size,
    list_folder,
    list_images,
    read_sizes,
)
from datasets.formats.pose_checks import rigid_c2w
from datasets.npy import ARRAY_ERRORS
from datasets.posed_scene import PosedScene
from utils.cameras import Cameras
from utils.errors import UserError

FERN_TARGETS = (12, 13, 5, 19)
"""Views of LLFF's fern that are rendered in MVSNeRF's protocol (Chen et al., ICCV 2021)."""
FERN_POOL = (17, 2, 7, 6, 11, 1, 8, 18, 3, 16, 4, 14, 9, 10, 0, 15)
"""Views from which that protocol takes the sources: the nearest to the target."""

_IMAGE_FOLDER = re.compile(r"images(_\d+)?")
_NEAR_FACTOR, _FAR_FACTOR = 0.8, 1.2
_MIN_FOCAL, _MAX_FOCAL = 0.05, 100.0
"""Focal lengths, in image widths, beyond which a file cannot be right."""
_MAX_BYTES = 1 << 24
_MAX_ASPECT_PIXELS = 2.0
"""By how much the sides of a shrunk image may be rounded, together."""


def read_llff(folder: str | Path, size: Size | None = (640, 960)) -> PosedScene:
    """Read a scene in LLFF's layout; pixels are read when asked for.

    Near and far are 0.8 times the nearest and 1.2 times the farthest bound of the scene. Images
    come from the smallest of ``images``, ``images_4``, ... that is at least as large as wanted.

    Args:
        folder: Holds ``poses_bounds.npy`` and the folders of images.
        size: Height and width to resize to, whatever the aspect; None: as the largest images are.

    Raises:
        UserError: A file is missing or malformed, or images and cameras do not go together.
    """
    root = Path(folder)
    if size is not None:
        check_wanted_size(size)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. An LLFF scene holds poses_bounds.npy and images.")
    path = root / "poses_bounds.npy"
    rows = _read_rows(path)
    c2w, bounds = _poses(rows, path), rows[:, 15:]
    images = list_images(_choose_images(root, size))
    _check_count(images, len(rows), path)
    sizes = read_sizes(images)
    for image, file_size, row in zip(images, sizes, rows, strict=True):
        _check_aspect(image, file_size, row, path)
    image_size = common_size(images, sizes) if size is None else size
    ids = tuple(range(len(rows)))
    return PosedScene(
        name=root.resolve().name,
        view_ids=ids,
        view_names=tuple(image.name for image in images),
        cameras=Cameras(_intrinsics(rows, image_size).float(), c2w.float()),
        near_far=given_near_far(
            _NEAR_FACTOR * bounds.min().item(), _FAR_FACTOR * bounds.max().item(), str(path)
        ),
        image_size=image_size,
        read_view=PhotoReader(tuple(map(Photo, images, sizes)), image_size),
    )


def _read_rows(path: Path) -> Float64[np.ndarray, "view 17"]:
    """Read the array and check every number of it but the poses."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(
                f"{path}: larger than any list of cameras ({_MAX_BYTES} bytes at most)."
            )
        # Mapping compares the promised shape with the file's size before any memory is taken.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: the file is missing. LLFF's cameras come with the data set, or from LLFF's "
            "imgs2poses.py."
        ) from error
    except ARRAY_ERRORS as error:
        raise UserError(
            f"{path}: cannot read the cameras ({_first_line(error)}). Copy the file again."
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise UserError(f"{path}: the file holds no array of numbers; expected n rows of 17.")
    if array.ndim != 2 or array.shape[1] != 17 or not len(array):
        raise UserError(
            f"{path}: the array has shape {array.shape}; expected (n, 17), for each view a 3x5 "
            "matrix and two bounds."
        )
    rows = np.array(array, np.float64)
    _check_rows(rows, path)
    return rows


def _check_rows(rows: Float64[np.ndarray, "view 17"], path: Path) -> None:
    for number, row in enumerate(rows):
        if not np.isfinite(row).all():
            raise UserError(f"{path}, row {number}: holds values that are not finite.")
        height, width, focal = row[[4, 9, 14]]
        if min(height, width) <= 0 or not _MIN_FOCAL <= focal / width <= _MAX_FOCAL:
            raise UserError(
                f"{path}, row {number}: image height, width and focal length are {height:g}, "
                f"{width:g} and {focal:g} pixels; that is no camera."
            )
        given_near_far(row[15].item(), row[16].item(), f"{path}, row {number}")


def _poses(rows: Float64[np.ndarray, "view 17"], path: Path) -> Float64[Tensor, "view 4 4"]:
    matrices = torch.from_numpy(rows[:, :15].reshape(-1, 3, 5))
    down, right, backwards, center = matrices[..., :4].unbind(-1)
    poses = torch.stack([right, down, -backwards, center], -1)
    return torch.stack(
        [rigid_c2w(pose, f"{path}, row {number}") for number, pose in enumerate(poses)]
    )


def _intrinsics(rows: Float64[np.ndarray, "view 17"], size: Size) -> Float64[Tensor, "view 3 3"]:
    height, width, focal = torch.from_numpy(rows[:, [4, 9, 14]]).unbind(-1)
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(len(rows), 1, 1)
    intrinsics[:, 0, 0] = focal * size[1] / width
    intrinsics[:, 1, 1] = focal * size[0] / height
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = size[1] / 2, size[0] / 2
    return intrinsics


def _choose_images(root: Path, size: Size | None) -> Path:
    """Choose the smallest images that need not be enlarged, else the largest."""
    entries = list_folder(root)
    folders = [
        entry
        for entry in entries
        if _IMAGE_FOLDER.fullmatch(entry.name) and entry.is_dir() and list_images(entry)
    ]
    if not folders:
        found = ", ".join(entry.name for entry in entries[:8])
        raise UserError(
            f"{root}: neither images/ nor images_4/ or the like holds images; the folder holds "
            f"{found}."
        )
    sizes = dict(zip(folders, read_sizes(list_images(entry)[0] for entry in folders), strict=True))
    return choose_image_folder(sizes, size)


def _check_count(images: list[Path], count: int, path: Path) -> None:
    if len(images) != count:
        raise UserError(
            f"{images[0].parent}: holds {len(images)} images ({images[0].name} to "
            f"{images[-1].name}), but {path} has cameras for {count}. They go together in the "
            "order of file names, so every image needs its camera: remove or restore files until "
            "the numbers agree."
        )


def _check_aspect(image: Path, size: Size, row: Float64[np.ndarray, " 17"], path: Path) -> None:
    height, width = row[4], row[9]
    if abs(size[0] - height * size[1] / width) > _MAX_ASPECT_PIXELS:
        raise UserError(
            f"{image}: the image is {size[1]}x{size[0]}, but its camera in {path} belongs to "
            f"images of {width:g}x{height:g} or a fraction of that. Is it turned or cropped?"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
