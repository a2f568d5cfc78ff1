"""The LLFF reader: a folder with ``poses_bounds.npy`` and its images, often shrunk by a factor.

Each row of ``poses_bounds.npy`` holds a 3x5 matrix ``[R | t | h w f]`` and the nearest and
farthest depth that the view sees (Mildenhall et al., Local Light Field Fusion, SIGGRAPH 2019).
``R`` is camera-to-world with axes down, right, backwards; ``h w f`` speak of the full image, the
principal point is its centre. Images go with rows in the order of their names.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from datasets.formats.checks import (
    ARRAY_ERRORS,
    MOST_FAR,
    check_aspect,
    check_pinhole,
    rigid_poses,
)
from datasets.formats.image_files import (
    by_number,
    choose_image_folder,
    describe_folder,
    find_image_folders,
    list_images,
)
from datasets.formats.options import ReadOptions, Size
from datasets.formats.photo_files import (
    Photo,
    photo_scene,
    read_sizes,
    shortened,
    sizes_for_cameras,
    warn_once,
)
from datasets.formats.scene_lists import content_lines
from datasets.posed_scene import PosedScene
from utils.errors import UserError, first_line
from utils.files import check_size

_NEAR_FACTOR, _FAR_FACTOR = 0.8, 1.2
_MAX_BYTES = 1 << 24


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene in LLFF's layout; pixels are read when asked for.

    Near and far are 0.8 times the nearest and 1.2 times the farthest bound of the scene. Images
    come from the smallest of ``images``, ``images_4``, ... that is at least as large as wanted.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder. An LLFF scene holds poses_bounds.npy and images."
        )
    path = folder / "poses_bounds.npy"
    rows = _read_rows(path)
    image_folder, options = _choose_images(folder, options)
    images = _used_images(folder, sorted(list_images(image_folder)))
    if len(images) != len(rows):
        advice = "Remove or restore images until there is one for each camera"
        if any((folder / place).exists() for place in ("sparse", "colmap")):
            advice += ", or read the COLMAP model beside it: --dataset_name colmap"
        raise UserError(
            f"{image_folder}: holds {len(images)} images ({images[0].name} to {images[-1].name}), "
            f"but {path} has cameras for {len(rows)}; both go by file names. {advice}."
        )
    natives: list[Size | None] = [(round(row[4].item()), round(row[9].item())) for row in rows]
    sizes, photos = sizes_for_cameras(images, natives, path, exif=False), []
    for image, (size, upright), row in zip(images, sizes, rows, strict=True):
        check_aspect(size, (row[4].item(), row[9].item()), image, str(path))
        photos.append(Photo(image, size, _intrinsics(row, size), upright=upright))
    c2w = _poses(rows, path)
    near_far = None if options.near_far else _near_far(rows, path)
    # Rows go by name, views by the numbers in the names: these differ where 10 comes before 2.
    order = sorted(range(len(images)), key=lambda place: by_number(images[place].name))
    photos = [photos[place] for place in order]
    return photo_scene(folder.resolve().name, path, photos, list(c2w[order]), options, near_far)


def _used_images(folder: Path, images: list[Path]) -> list[Path]:
    """Keep the images that ``view_imgs.txt`` lists, in which LLFF's scripts say what they used."""
    path = folder / "view_imgs.txt"
    if not path.is_file():
        return images
    named = {Path(line).stem for _, line in content_lines(path)}
    return [image for image in images if image.stem in named]


def _near_far(rows: Float64[np.ndarray, "view 17"], path: Path) -> tuple[float, float] | None:
    """Return the range of the rows whose own is one; points behind a camera spoil some, or all."""
    near, far = rows[:, 15], rows[:, 16]
    usable = (near > 0) & (near < far) & (far <= MOST_FAR * near)
    if not usable.any():
        warn_once(f"{path}: in no row the bounds are 0 < near < far; near and far are measured")
        return None
    if not usable.all():
        left_out = [str(number) for number in np.flatnonzero(~usable)]
        warn_once(
            f"{path}: the bounds of {len(left_out)} rows are not 0 < near < far, or near is next "
            f"to nothing; they are left out: row {shortened(left_out)}"
        )
    bounds = rows[usable, 15:]
    return _NEAR_FACTOR * bounds.min().item(), _FAR_FACTOR * bounds.max().item()


def _read_rows(path: Path) -> Float64[np.ndarray, "view 17"]:
    try:
        check_size(path, _MAX_BYTES, "list of cameras")
        # Mapping compares the promised shape with the file's size before any memory is taken.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: the file is missing; the data set or LLFF's imgs2poses.py has it."
        ) from error
    except ARRAY_ERRORS as error:
        told = f"{path}: cannot read the cameras ({first_line(error)}). Copy the file again."
        raise UserError(told) from error
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
        height, width, focal = row[[4, 9, 14]].tolist()
        if min(height, width) <= 0:
            raise UserError(
                f"{path}, row {number}: image height, width and focal length are {height:g}, "
                f"{width:g} and {focal:g} pixels; that is no camera."
            )
        focals, center = (focal, focal), (width / 2, height / 2)
        check_pinhole(focals, center, (height, width), f"{path}, row {number}")


def _poses(rows: Float64[np.ndarray, "view 17"], path: Path) -> Float64[Tensor, "view 4 4"]:
    matrices = torch.from_numpy(rows[:, :15].reshape(-1, 3, 5))
    down, right, backwards, center = matrices[..., :4].unbind(-1)
    poses = torch.stack([right, down, -backwards, center], -1)
    return rigid_poses(poses, [f"{path}, row {number}" for number in range(len(poses))])


def _intrinsics(row: Float64[np.ndarray, " 17"], size: Size) -> Float64[Tensor, "3 3"]:
    (rows, columns), (height, width, focal) = size, row[[4, 9, 14]].tolist()
    focal_x, focal_y = focal * columns / width, focal * rows / height
    matrix = [[focal_x, 0, columns / 2], [0, focal_y, rows / 2], [0, 0, 1]]
    return torch.tensor(matrix, dtype=torch.float64)


def _choose_images(root: Path, options: ReadOptions) -> tuple[Path, ReadOptions]:
    folders = {
        entry: found
        for entry in find_image_folders(root, "images")
        if (found := list_images(entry))
    }
    if not folders:
        raise UserError(
            f"{root}: neither images/ nor images_4/ or the like holds images; "
            f"{describe_folder(root)}."
        )
    firsts = read_sizes(images[0] for images in folders.values())
    return choose_image_folder(dict(zip(folders, firsts, strict=True)), options)
