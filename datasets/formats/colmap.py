"""The COLMAP reader: photos with a sparse model beside them.

``sparse/0``, ``sparse``, ``colmap/sparse/0`` or the folder itself holds the model; the photos lie
in ``images``, or shrunk in ``images_2``, ``images_4``, ... Near and far follow LLFF's rule: the
0.1 and 99.9 percentiles of the depths of the points that a view saw (Mildenhall et al., Local
Light Field Fusion, SIGGRAPH 2019), with the margins of ``datasets.formats.llff``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from datasets.formats.colmap_files import (
    ColmapCamera,
    ColmapImage,
    ColmapPoints,
    find_model_file,
    is_model,
    read_cameras,
    read_images,
    read_points,
)
from datasets.formats.colmap_lenses import image_lens
from datasets.formats.colmap_photos import find_photos
from datasets.formats.images import Size
from datasets.formats.near_far import estimate_near_far, given_near_far
from datasets.formats.photo_files import (
    Photo,
    PhotoReader,
    check_wanted_size,
    common_size,
    read_sizes,
)
from datasets.formats.pose_checks import rigid_c2w
from datasets.posed_scene import PosedScene
from datasets.view_selection import rank_by_common_points
from utils.cameras import Cameras, resize_intrinsics, to_camera
from utils.errors import UserError

_LOG = logging.getLogger(__name__)
_MODEL_FOLDERS = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "model", ".")
_NEAR_FACTOR, _FAR_FACTOR = 0.8, 1.2
_PERCENTILES = (0.001, 0.999)
_MIN_POINTS = 10
"""A view that saw fewer is given the range of the scene."""


def read_colmap(
    folder: str | Path,
    size: Size | None = None,
    *,
    near_far: tuple[float, float] | None = None,
) -> PosedScene:
    """Read a scene with a COLMAP model; pixels are read when asked for.

    Distortion is undone on reading, with the same focal length and principal point. Views are the
    registered images in the order of their names; those whose photo is missing are left out.

    Args:
        folder: Holds the model and the photos.
        size: Height and width to resize to, whatever the aspect; None: as the photos are.
        near_far: Nearest and farthest z-depth in COLMAP's units; None: from the points.

    Raises:
        UserError: A file is missing or malformed, or photos and cameras do not go together.
    """
    root = Path(folder)
    if size is not None:
        check_wanted_size(size)
    model = find_model(root)
    cameras_path = find_model_file(model, "cameras") or model / "cameras.bin"
    images_path = find_model_file(model, "images") or model / "images.bin"
    lenses, images = read_cameras(cameras_path), read_images(images_path)
    _check_model(lenses, images, images_path)
    paths = find_photos(root, {number: image.name for number, image in images.items()}, size)
    order = sorted(paths, key=lambda number: images[number].name)
    sizes = read_sizes(paths[number] for number in order)
    photos = tuple(
        Photo(paths[number], file_size, image_lens(lenses[images[number].camera], file_size, place))
        for number, file_size in zip(order, sizes, strict=True)
        for place in [f"{cameras_path}, camera {images[number].camera} ({images[number].name!r})"]
    )
    image_size = common_size([photo.path for photo in photos], sizes) if size is None else size
    c2w = torch.stack([_c2w(images[number], images_path) for number in order])
    cameras = Cameras(_intrinsics(photos, image_size).float(), c2w.float())
    points = _points(model)
    seen = [np.array(points.tracks.get(number, ()), np.int64) for number in order]
    ranges = None if near_far else view_ranges(points.positions, seen, cameras)
    return PosedScene(
        name=root.resolve().name,
        view_ids=tuple(range(len(order))),
        view_names=tuple(images[number].name for number in order),
        cameras=cameras,
        near_far=_near_far(near_far, ranges, cameras, model),
        image_size=image_size,
        read_view=PhotoReader(photos, image_size),
        view_near_far=ranges,
        neighbours=rank_by_common_points(points.positions, seen, c2w[:, :3, 3].numpy()),
    )


def find_model(root: Path) -> Path:
    """Return the folder of the sparse model.

    Raises:
        UserError: There is none, or it lacks a file.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. A COLMAP scene holds sparse/0 and images.")
    folders = [root / name for name in _MODEL_FOLDERS]
    found = next((folder for folder in folders if is_model(folder)), None)
    if found is not None:
        return found
    for folder in folders:
        present = [r for r in ("cameras", "images", "points3D") if find_model_file(folder, r)]
        if present:
            raise UserError(
                f"{folder}: the COLMAP model has {' and '.join(present)} but lacks "
                f"{'images' if 'images' not in present else 'cameras'}.bin (or .txt), without "
                "which there are no cameras. Copy the whole model."
            )
    raise UserError(
        f"{root}: no COLMAP model (cameras.bin and images.bin, or .txt) in sparse/0, sparse or "
        "colmap/sparse/0. Run COLMAP first, or python -m apps.estimate_cameras."
    )


def view_ranges(
    positions: Float64[np.ndarray, "point 3"],
    seen: Sequence[Int[np.ndarray, " _"]],
    cameras: Cameras,
) -> Float[Tensor, "view 2"] | None:
    """Return the depth range of each view's points, with margins; None if no view saw enough."""
    ranges = torch.full((len(seen), 2), torch.nan)
    for view, own in enumerate(seen):
        depths = to_camera(torch.from_numpy(positions[own]).float(), cameras[view])[..., 2]
        depths = depths[depths.isfinite() & (depths > 0)]
        if len(depths) >= _MIN_POINTS:
            bounds = np.quantile(depths.double().numpy(), _PERCENTILES)
            ranges[view] = torch.tensor([_NEAR_FACTOR * bounds[0], _FAR_FACTOR * bounds[1]])
    known = ranges[~ranges.isnan().any(-1)]
    if not len(known):
        return None
    whole = torch.stack([known[:, 0].min(), known[:, 1].max()])
    return torch.where(ranges.isnan(), whole, ranges)


def _check_model(
    lenses: Mapping[int, ColmapCamera], images: Mapping[int, ColmapImage], path: Path
) -> None:
    if not images:
        raise UserError(f"{path}: no image was registered. COLMAP found no solution.")
    names = [image.name for image in images.values()]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path}: {twice!r} is there twice; export the model again.")
    for image in images.values():
        if image.camera not in lenses:
            raise UserError(
                f"{path}: {image.name!r} was taken by camera {image.camera}, which the model does "
                "not have. Do its files belong together?"
            )


def _c2w(image: ColmapImage, path: Path) -> Float64[Tensor, "4 4"]:
    source = f"{path} ({image.name!r})"
    w, *xyz = torch.tensor(image.quaternion, dtype=torch.float64)
    axis = torch.stack(xyz)
    norm = (w * w + axis @ axis).sqrt()
    if not 0.5 < norm.item() < 2:
        raise UserError(f"{source}: the quaternion {image.quaternion} is no rotation.")
    w, axis = w / norm, axis / norm
    x, y, z = axis
    zero = torch.zeros((), dtype=torch.float64)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
    rotation = torch.eye(3, dtype=torch.float64) + 2 * (w * cross + cross @ cross)
    translation = torch.tensor(image.translation, dtype=torch.float64)
    center = -rotation.T @ translation
    return rigid_c2w(torch.cat([rotation.T, center[:, None]], 1), source)


def _intrinsics(photos: Sequence[Photo], size: Size) -> Float64[Tensor, "view 3 3"]:
    return torch.stack(
        [
            resize_intrinsics(
                photo.lens.intrinsics, size[1] / photo.size[1], size[0] / photo.size[0]
            )
            for photo in photos
            if photo.lens is not None
        ]
    )


def _points(model: Path) -> ColmapPoints:
    path = find_model_file(model, "points3D")
    if path is not None:
        return read_points(path)
    _LOG.warning("%s: has no points3D; near and far are guessed from the cameras", model)
    return ColmapPoints(np.zeros((0, 3)), {})


def _near_far(
    given: tuple[float, float] | None,
    ranges: Float[Tensor, "view 2"] | None,
    cameras: Cameras,
    model: Path,
) -> Float[Tensor, " 2"]:
    if given is not None:
        return given_near_far(*given, f"{model}, with the given range")
    if ranges is None:
        return estimate_near_far(cameras, str(model))
    near, far = ranges[:, 0].min().item(), ranges[:, 1].max().item()
    return given_near_far(near, far, f"{model}, from its points")
