"""Reader of photos with a COLMAP sparse model.

The model lies in ``sparse/0``, ``sparse``, ``colmap/sparse/0``, ``distorted/sparse/0``, ETH3D's
``dslr_calibration_undistorted`` or the scene folder; of ``sparse/0``, ``sparse/1``, ... the one
with the most images is read. Photos lie in ``images``, or downscaled in ``images_2``, ``images_4``,
..., else in ``input``; optional masks lie in ``masks``. Near and far follow LLFF: the 0.1 and 99.9
percentiles of the depths of the points that a view observes (Mildenhall et al., Local Light Field
Fusion, SIGGRAPH 2019), with the margins of ``datasets.formats.llff``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from scipy.spatial.transform import Rotation
from torch import Tensor

from datasets.formats.checks import check_aspect, check_pinhole, rigid_poses
from datasets.formats.colmap.model import (
    ColmapCamera,
    ColmapImage,
    ColmapPoints,
    find_model_file,
    read_cameras,
    read_images,
    read_points,
)
from datasets.formats.colmap.photos import find_masks, find_photos
from datasets.formats.images.image_files import find_image_folders, natural_key
from datasets.formats.images.lenses import Lens
from datasets.formats.images.photos import MaskFile, Photo, oriented_sizes, photo_scene
from datasets.formats.llff import FAR_FACTOR, NEAR_FACTOR
from datasets.formats.messages import join_names, warn_once
from datasets.formats.options import ReadOptions, Size
from datasets.formats.splits import declared_splits, read_view_lists
from datasets.formats.unsupported import describe_unsupported
from datasets.posed_scene import PosedScene
from datasets.view_selection import rank_by_common_points
from utils.cameras import Cameras, to_camera
from utils.errors import UserError

_MODEL_FOLDERS = (
    *("sparse", "colmap/sparse", "colmap_sparse", "distorted/sparse", "sparse_text", "colmap_text"),
    *("dslr_calibration_undistorted", "model", "."),
)
_PERCENTILES = (0.001, 0.999)
_MIN_POINTS = 10
"""A view that observes fewer points gets the range of the scene."""
_MAX_ROUNDING = 0.002
"""Rounding of positions, relative to the spread of the cameras, that is not worth a warning."""
_PERSPECTIVE_MODELS = {
    **{"SIMPLE_PINHOLE": 1, "PINHOLE": 2, "SIMPLE_RADIAL": 1, "RADIAL": 1},
    **{"OPENCV": 2, "FULL_OPENCV": 2},
}
"""Number of focal lengths among the parameters of each supported camera model."""
_FISHEYE_MODELS = {
    **{"SIMPLE_FISHEYE": 1, "FISHEYE": 2, "SIMPLE_RADIAL_FISHEYE": 1, "RADIAL_FISHEYE": 1},
    **{"OPENCV_FISHEYE": 2},
}


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene; views are the registered images with a photo, by the numbers in their names.

    Distortion is undone on reading, with the same focal length and principal point.
    """
    root = _find_workspace(folder)
    model = _find_model(root)
    cameras_path, images_path = _model_file(model, "cameras"), _model_file(model, "images")
    cameras, images = read_cameras(cameras_path), read_images(images_path)
    _check_model(cameras, images, images_path)
    names = {number: image.name for number, image in images.items()}
    paths, options = find_photos(root, names, options)
    order = sorted(paths, key=lambda number: natural_key(names[number]))
    own_cameras = [cameras[images[number].camera] for number in order]
    stated: list[Size | None] = [(camera.height, camera.width) for camera in own_cameras]
    # COLMAP ignores EXIF rotation.
    sizes = oriented_sizes([paths[number] for number in order], stated, model, apply_exif=False)
    masks, photos = find_masks(root, {number: names[number] for number in order}), []
    for number, camera, (size, upright) in zip(order, own_cameras, sizes, strict=True):
        source = f"{cameras_path}, camera {images[number].camera} ({names[number]!r})"
        check_aspect(size, (camera.height, camera.width), paths[number], source)
        lens = build_lens(camera, size, source)
        mask = (MaskFile(masks[number]),) if number in masks else ()
        photos.append(Photo(paths[number], size, lens.intrinsics, lens, mask, upright=upright))
    c2w = _poses([images[number] for number in order], images_path)
    _warn_of_rounding(images, c2w, images_path)
    points = _read_points(model)
    tracks = [np.array(points.tracks.get(number, ()), np.int64) for number in order]
    ranges = None if options.near_far else _view_ranges(points.positions, tracks, c2w)
    view_names = tuple(names[number] for number in order)
    return photo_scene(
        folder.resolve().name,
        model,
        photos,
        list(c2w),
        options,
        None if ranges is None else (ranges[:, 0].min().item(), ranges[:, 1].max().item()),
        view_names=view_names,
        splits=declared_splits(read_view_lists((root, model)), view_names, model),
        view_near_far=ranges,
        neighbours=rank_by_common_points(points.positions, tracks, c2w[:, :3, 3].numpy()),
    )


def build_lens(camera: ColmapCamera, size: Size, source: str) -> Lens:
    """Return the lens of a photo, which may be a downscaled copy; ``source`` begins messages."""
    models = {**_PERSPECTIVE_MODELS, **_FISHEYE_MODELS}
    if camera.model not in models:
        raise UserError(
            f"{source}: camera model {camera.model} is not supported. Undistort the photos: colmap "
            "image_undistorter --image_path IMAGES --input_path MODEL --output_path NEW."
        )
    scale = size[1] / camera.width, size[0] / camera.height
    focals = models[camera.model]
    focal_x, focal_y = camera.parameters[0], camera.parameters[focals - 1]
    center_x, center_y, *distortion = camera.parameters[focals:]
    full_size = camera.height, camera.width
    check_pinhole((focal_x, focal_y), (center_x, center_y), full_size, source)
    is_fisheye = camera.model in _FISHEYE_MODELS
    # COLMAP omits the last of OpenCV's coefficients: k1 k2 p1 p2 k3 ..., or k1 to k4.
    missing = (4 if is_fisheye else 5) - len(distortion)
    return Lens(
        "fisheye" if is_fisheye else "perspective",
        (focal_x * scale[0], focal_y * scale[1]),
        (center_x * scale[0], center_y * scale[1]),
        (*distortion, *[0.0] * missing),
    )


def _find_workspace(folder: Path) -> Path:
    """Return the folder of model and photos: COLMAP's automatic reconstructor uses dense/0, ..."""
    parts = _numbered_folders(folder / "dense")
    if not parts or find_image_folders(folder, "images|input"):
        return folder
    return _largest_model([part / "sparse" for part in parts]).parent


def _find_model(root: Path) -> Path:
    """Return the folder of the sparse model; of several, the one with the most images."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. A COLMAP scene holds sparse/0 and images.")
    candidates = [
        folder
        for name in _MODEL_FOLDERS
        for folder in (*_numbered_folders(root / name), root / name)
    ]
    missing = {
        folder: [role for role in ("cameras", "images") if not find_model_file(folder, role)]
        for folder in candidates
    }
    complete = [folder for folder in candidates if not missing[folder]]
    if complete:
        siblings = _numbered_folders(complete[0].parent)
        return _largest_model([part for part in complete if part in siblings] or complete[:1])
    for folder, roles in missing.items():
        if len(roles) == 1:
            raise UserError(
                f"{folder}: the COLMAP model lacks {roles[0]}.bin (or .txt), without which there "
                "are no cameras. Copy the whole model."
            )
    raise UserError(
        describe_unsupported(root)
        or f"{root}: no COLMAP model (cameras.bin and images.bin, or .txt) in sparse/0, sparse or "
        "colmap/sparse/0. Run COLMAP first, or python -m apps.estimate_cameras."
    )


def _numbered_folders(folder: Path) -> list[Path]:
    """Return the folders 0, 1, ... of the models that COLMAP split a scene into."""
    numbered = [path for path in folder.glob("*/") if path.name.isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name))


def _model_file(model: Path, role: str) -> Path:
    return find_model_file(model, role) or model / f"{role}.bin"


def _largest_model(models: Sequence[Path]) -> Path:
    if len(models) == 1:
        return models[0]
    counts = {model: len(read_images(_model_file(model, "images"))) for model in models}
    largest = max(models, key=lambda model: counts[model])
    others = [f"{model.name} has {counts[model]}" for model in models if model != largest]
    warn_once(
        f"{largest}: the largest of {len(models)} models is read, with {counts[largest]} images; "
        f"{join_names(others)}"
    )
    return largest


def _view_ranges(
    positions: Float64[np.ndarray, "point 3"],
    tracks: Sequence[Int[np.ndarray, " _"]],
    c2w: Float64[Tensor, "view 4 4"],
) -> Float[Tensor, "view 2"] | None:
    """Return the depth range of each view's points, with margins; None if all have too few."""
    ranges = torch.full((len(tracks), 2), torch.nan)
    cameras = Cameras(torch.eye(3, dtype=torch.float64).expand(len(tracks), 3, 3), c2w)
    for view, track in enumerate(tracks):
        depths = to_camera(torch.from_numpy(positions[track]), cameras[view])[..., 2]
        depths = depths[depths.isfinite() & (depths > 0)]
        if len(depths) >= _MIN_POINTS:
            bounds = np.quantile(depths.numpy(), _PERCENTILES)
            ranges[view] = torch.tensor([NEAR_FACTOR * bounds[0], FAR_FACTOR * bounds[1]])
    known = ranges[~ranges.isnan().any(-1)]
    if not len(known):
        return None
    scene_range = torch.stack([known[:, 0].min(), known[:, 1].max()])
    return torch.where(ranges.isnan(), scene_range, ranges)


def _check_model(
    cameras: Mapping[int, ColmapCamera], images: Mapping[int, ColmapImage], path: Path
) -> None:
    if not images:
        raise UserError(f"{path}: no image was registered; run COLMAP again.")
    names: set[str] = set()
    for image in images.values():
        if image.name in names:
            raise UserError(f"{path}: {image.name!r} appears twice; export the model again.")
        names.add(image.name)
        parts = PurePosixPath(image.name.replace("\\", "/")).parts
        if not image.name.strip() or ".." in parts:
            raise UserError(
                f"{path}: the COLMAP model has an image named {image.name[:80]!r}; run COLMAP with "
                "--image_path on the folder of the photos, or above it."
            )
        if image.camera not in cameras:
            raise UserError(
                f"{path}: {image.name!r} was taken by camera {image.camera}, which the model does "
                "not have. Copy cameras and images from the same model."
            )


def _poses(images: Sequence[ColmapImage], path: Path) -> Float64[Tensor, "view 4 4"]:
    matrices, sources = [], [f"{path} ({image.name!r})" for image in images]
    for image, source in zip(images, sources, strict=True):
        if not 0.5 < float(np.linalg.norm(image.quaternion)) < 2:
            raise UserError(
                f"{source}: the quaternion {image.quaternion} is not a rotation; export the model "
                "again."
            )
        rotation = Rotation.from_quat(image.quaternion, scalar_first=True).inv().as_matrix()
        center = -rotation @ np.array(image.translation)
        matrices.append(np.concatenate([rotation, center[:, None]], 1))
    return rigid_poses(torch.from_numpy(np.stack(matrices)), sources)


def _warn_of_rounding(
    images: Mapping[int, ColmapImage], c2w: Float64[Tensor, "view 4 4"], path: Path
) -> None:
    """Warn of text files with six digits, as older COLMAP wrote, far from the origin."""
    numbers = [number for image in images.values() for number in image.translation]
    largest = max(map(abs, numbers))
    if largest == 0 or any(float(f"{number:.6g}") != number for number in numbers):
        return
    step = 10.0 ** (math.floor(math.log10(largest)) - 5)
    spread = (c2w[:, :3, 3] - c2w[:, :3, 3].mean(0)).norm(dim=-1).mean().item()
    if step > _MAX_ROUNDING * spread:
        warn_once(
            f"{path}: positions are rounded to {step:g}, but the mean distance of the cameras from "
            f"their centre is {spread:.3g}: six digits are too few this far from the origin. Use "
            "the binary model from which this was converted (images.bin)"
        )


def _read_points(model: Path) -> ColmapPoints:
    path = find_model_file(model, "points3D")
    if path is not None:
        return read_points(path)
    warn_once(f"{model}: has no points3D; near and far are measured or estimated")
    return ColmapPoints(np.zeros((0, 3)), {})
