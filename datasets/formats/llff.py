"""Reader of LLFF scenes: ``poses_bounds.npy`` and images, often downscaled as in ``images_4``.

Each row of ``poses_bounds.npy`` holds a 3x5 matrix ``[R | t | h w f]`` and the nearest and farthest
depth of the view (Mildenhall et al., Local Light Field Fusion, SIGGRAPH 2019). ``R`` is
camera-to-world with axes down, right, backwards; ``h w f`` refer to the full-size image, whose
centre is the principal point. Images belong to rows in the order of their names.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from datasets.formats.checks import check_aspect, check_pinhole, load_array, rigid_poses
from datasets.formats.depth_range import MAX_DEPTH_RATIO
from datasets.formats.images.decoding import read_image_size
from datasets.formats.images.image_files import (
    choose_image_folder,
    describe_folder,
    find_image_folders,
    list_images,
    natural_key,
)
from datasets.formats.images.photos import Photo, oriented_sizes, photo_scene
from datasets.formats.messages import join_names, warn_once
from datasets.formats.options import ReadOptions, Size
from datasets.formats.splits import content_lines
from datasets.posed_scene import PosedScene
from utils.errors import UserError

NEAR_FACTOR, FAR_FACTOR = 0.8, 1.2
_MAX_BYTES = 1 << 24


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene, from the smallest images that are at least as large as the target size.

    Near and far are 0.8 times the nearest and 1.2 times the farthest bound of the scene.
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
        if any((folder / name).exists() for name in ("sparse", "colmap")):
            advice += ", or read the COLMAP model beside it: --dataset_name colmap"
        raise UserError(
            f"{image_folder}: holds {len(images)} images ({images[0].name} to {images[-1].name}), "
            f"but {path} has cameras for {len(rows)}; both go by file names. {advice}."
        )
    stated: list[Size | None] = [(round(row[4].item()), round(row[9].item())) for row in rows]
    sizes, photos = oriented_sizes(images, stated, path, apply_exif=False), []
    for image, (size, upright), row in zip(images, sizes, rows, strict=True):
        check_aspect(size, (row[4].item(), row[9].item()), image, str(path))
        photos.append(Photo(image, size, _intrinsics(row, size), upright=upright))
    c2w = _poses(rows, path)
    near_far = None if options.near_far else _near_far(rows, path)
    # Rows are in the order of names, views in that of numbers: 10 comes before 2 in one of them.
    order = sorted(range(len(images)), key=lambda index: natural_key(images[index].name))
    photos = [photos[index] for index in order]
    return photo_scene(folder.resolve().name, path, photos, list(c2w[order]), options, near_far)


def _used_images(folder: Path, images: list[Path]) -> list[Path]:
    """Keep the images in ``view_imgs.txt``, where LLFF's scripts list what they used."""
    path = folder / "view_imgs.txt"
    if not path.is_file():
        return images
    used = {Path(line).stem for _, line in content_lines(path)}
    return [image for image in images if image.stem in used]


def _near_far(rows: Float64[np.ndarray, "view 17"], path: Path) -> tuple[float, float] | None:
    """Return the range of the valid bounds; points behind a camera or at it spoil others."""
    near, far = rows[:, 15], rows[:, 16]
    valid = (near > 0) & (near < far) & (far <= MAX_DEPTH_RATIO * near)
    if not valid.any():
        warn_once(f"{path}: in no row the bounds are 0 < near < far; near and far are measured")
        return None
    if not valid.all():
        left_out = [str(number) for number in np.flatnonzero(~valid)]
        warn_once(
            f"{path}: the bounds of {len(left_out)} rows are not 0 < near < far, or near is almost "
            f"0; they are left out: row {join_names(left_out)}"
        )
    bounds = rows[valid, 15:]
    return NEAR_FACTOR * bounds.min().item(), FAR_FACTOR * bounds.max().item()


def _read_rows(path: Path) -> Float64[np.ndarray, "view 17"]:
    if not path.is_file():
        raise UserError(
            f"{path}: the file is missing; the data set or LLFF's imgs2poses.py has it."
        )
    array = load_array(path, "list of cameras", _MAX_BYTES)
    if array.ndim != 2 or array.shape[1] != 17 or not len(array):
        raise UserError(
            f"{path}: the array has shape {array.shape}; expected (n, 17), for each view a 3x5 "
            "matrix and two bounds."
        )
    rows = np.array(array, np.float64)
    for number, row in enumerate(rows):
        _check_row(row, f"{path}, row {number}")
    return rows


def _check_row(row: Float64[np.ndarray, " 17"], source: str) -> None:
    if not np.isfinite(row).all():
        raise UserError(f"{source}: holds values that are not finite.")
    height, width, focal = row[[4, 9, 14]].tolist()
    if min(height, width) <= 0:
        raise UserError(
            f"{source}: image height and width are {height:g} and {width:g} pixels, but must be "
            "positive. Create the file again with LLFF's imgs2poses.py."
        )
    check_pinhole((focal, focal), (width / 2, height / 2), (height, width), source)


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
    sizes = {
        folder: read_image_size(images[0])
        for folder in find_image_folders(root, "images")
        if (images := list_images(folder))
    }
    if not sizes:
        raise UserError(
            f"{root}: neither images/ nor images_4/ or the like holds images; "
            f"{describe_folder(root)}."
        )
    return choose_image_folder(sizes, options)
