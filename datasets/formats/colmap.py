"""The COLMAP reader: photos with a sparse model beside them.

``sparse/0``, ``sparse``, ``colmap/sparse/0``, ``distorted/sparse/0``, ETH3D's
``dslr_calibration_undistorted`` or the folder itself holds the model, of ``sparse/0``,
``sparse/1``, ... that of the most images; the photos lie in ``images``, or shrunk in ``images_2``,
``images_4``, ..., else in ``input``; masks, if any, in ``masks``. Near and far follow LLFF's rule:
the 0.1 and 99.9 percentiles of the depths of the points that a view saw (Mildenhall et al., Local
Light Field Fusion, SIGGRAPH 2019), with the margins of ``datasets.formats.llff``.
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

from datasets.formats.checks import check_aspect, check_pinhole, rigid_c2w
from datasets.formats.colmap_model import (
    ColmapCamera,
    ColmapImage,
    ColmapPoints,
    find_model_file,
    read_cameras,
    read_images,
    read_points,
)
from datasets.formats.colmap_photos import find_masks, find_photos
from datasets.formats.declared_splits import declared_splits, lists_beside_colmap
from datasets.formats.foreign import describe_foreign
from datasets.formats.image_files import by_number, find_image_folders
from datasets.formats.images import Lens
from datasets.formats.masks import MaskFile
from datasets.formats.options import ReadOptions, Size
from datasets.formats.photo_files import (
    Photo,
    photo_scene,
    shortened,
    sizes_for_cameras,
    warn_once,
)
from datasets.posed_scene import PosedScene
from datasets.view_selection import rank_by_common_points
from utils.cameras import Cameras, to_camera
from utils.errors import UserError

_MODEL_FOLDERS = (
    *("sparse", "colmap/sparse", "colmap_sparse", "distorted/sparse", "sparse_text", "colmap_text"),
    *("dslr_calibration_undistorted", "model", "."),
)
_NEAR_FACTOR, _FAR_FACTOR = 0.8, 1.2
_PERCENTILES = (0.001, 0.999)
_MIN_POINTS = 10
"""A view that saw fewer is given the range of the scene."""
_MAX_ROUNDING = 0.002
"""Rounding of positions, in the spread of the cameras, beyond which it shows."""
_ONE_FOCAL_FISHEYES = ("SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "SIMPLE_FISHEYE")
_FISHEYES = ("OPENCV_FISHEYE", "FISHEYE", *_ONE_FOCAL_FISHEYES)
_ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", *_ONE_FOCAL_FISHEYES)
_UNSUPPORTED = (
    *("FOV", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE"),
    *("SIMPLE_DIVISION", "DIVISION", "EUCM", "EQUIRECTANGULAR"),
)


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene with a COLMAP model; pixels are read when asked for.

    Distortion is undone on reading, with the same focal length and principal point. Views are the
    registered images in the order of their names; those whose photo is missing are left out.
    """
    name, folder = folder.resolve().name, _workspace(folder)
    model = find_model(folder)
    cameras_path = find_model_file(model, "cameras") or model / "cameras.bin"
    images_path = find_model_file(model, "images") or model / "images.bin"
    lenses, images = read_cameras(cameras_path), read_images(images_path)
    _check_model(lenses, images, images_path)
    names = {number: image.name for number, image in images.items()}
    paths, options = find_photos(folder, names, options)
    order = sorted(paths, key=lambda number: by_number(names[number]))
    own_cameras = [lenses[images[number].camera] for number in order]
    natives: list[Size | None] = [(camera.height, camera.width) for camera in own_cameras]
    # COLMAP leaves EXIF's turns aside.
    sizes = sizes_for_cameras([paths[number] for number in order], natives, model, exif=False)
    masks, photos = find_masks(folder, {number: names[number] for number in order}), []
    for number, camera, (size, upright) in zip(order, own_cameras, sizes, strict=True):
        source = f"{cameras_path}, camera {images[number].camera} ({names[number]!r})"
        check_aspect(size, (camera.height, camera.width), paths[number], source)
        lens = image_lens(camera, size, source)
        mask = (MaskFile(masks[number]),) if number in masks else ()
        photos.append(Photo(paths[number], size, lens.intrinsics, lens, mask, upright=upright))
    c2w = torch.stack([_c2w(images[number], images_path) for number in order])
    _warn_of_rounding(images, c2w, images_path)
    points = _points(model)
    seen = [np.array(points.tracks.get(number, ()), np.int64) for number in order]
    ranges = None if options.near_far else view_ranges(points.positions, seen, c2w)
    view_names = tuple(names[number] for number in order)
    return photo_scene(
        name,
        model,
        photos,
        list(c2w),
        options,
        None if ranges is None else (ranges[:, 0].min().item(), ranges[:, 1].max().item()),
        view_names=view_names,
        splits=declared_splits(lists_beside_colmap(folder, model), view_names, model),
        view_near_far=ranges,
        neighbours=rank_by_common_points(points.positions, seen, c2w[:, :3, 3].numpy()),
    )


def _workspace(folder: Path) -> Path:
    """Return the folder of the photos: COLMAP's automatic reconstruction has them in dense/0, ...

    Of several the one with the largest model counts.
    """
    parts = _parts(folder / "dense")
    if not parts or find_image_folders(folder, "images|input"):
        return folder
    return _largest([part / "sparse" for part in parts]).parent


def find_model(root: Path) -> Path:
    """Return the folder of the sparse model, of several that of the most images."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. A COLMAP scene holds sparse/0 and images.")
    roles = ("cameras", "images", "points3D")
    found = {
        folder: [role for role in roles if find_model_file(folder, role)]
        for place in _MODEL_FOLDERS
        for folder in (*_parts(root / place), root / place)
    }
    whole = [folder for folder, present in found.items() if present[:2] == ["cameras", "images"]]
    if whole:
        parts = [folder for folder in whole if folder in _parts(whole[0].parent)]
        return _largest(parts or whole[:1])
    for folder, present in found.items():
        if present:
            raise UserError(
                f"{folder}: the COLMAP model has {' and '.join(present)} but lacks "
                f"{'images' if 'images' not in present else 'cameras'}.bin (or .txt), without "
                "which there are no cameras. Copy the whole model."
            )
    raise UserError(
        describe_foreign(root)
        or f"{root}: no COLMAP model (cameras.bin and images.bin, or .txt) in sparse/0, sparse or "
        "colmap/sparse/0. Run COLMAP first, or python -m apps.estimate_cameras."
    )


def _parts(sparse: Path) -> list[Path]:
    """Return the folders of the models that COLMAP split a scene into: 0, 1, ..."""
    numbered = [path for path in sparse.glob("*/") if path.name.isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name))


def _largest(models: Sequence[Path]) -> Path:
    if len(models) == 1:
        return models[0]
    files = {model: find_model_file(model, "images") or model / "images.bin" for model in models}
    counts = {model: len(read_images(file)) for model, file in files.items()}
    best = max(models, key=lambda model: counts[model])
    others = [f"{model.name} has {counts[model]}" for model in models if model != best]
    warn_once(
        f"{best}: the largest of {len(models)} models is read, with {counts[best]} images; "
        f"{shortened(others)}"
    )
    return best


def image_lens(camera: ColmapCamera, size: Size, source: str) -> Lens:
    """Return the lens of a photo, which may be a shrunk copy of what COLMAP saw.

    ``source``, the file and camera, begins error messages.
    """
    if camera.model in _UNSUPPORTED:
        raise UserError(
            f"{source}: camera model {camera.model} is not supported. Undistort the photos: colmap "
            "image_undistorter --image_path IMAGES --input_path MODEL --output_path NEW."
        )
    scale = size[1] / camera.width, size[0] / camera.height
    focals = 1 if camera.model in _ONE_FOCAL else 2
    focal_x, focal_y = camera.parameters[0], camera.parameters[focals - 1]
    center_x, center_y, *distortion = camera.parameters[focals:]
    full_size = camera.height, camera.width
    check_pinhole((focal_x, focal_y), (center_x, center_y), full_size, source)
    fisheye = camera.model in _FISHEYES
    # COLMAP leaves out the last of OpenCV's coefficients: k1 k2 p1 p2 k3 ..., or k1 to k4.
    missing = (4 if fisheye else 5) - len(distortion)
    return Lens(
        "fisheye" if fisheye else "perspective",
        (focal_x * scale[0], focal_y * scale[1]),
        (center_x * scale[0], center_y * scale[1]),
        (*distortion, *[0.0] * missing),
    )


def view_ranges(
    positions: Float64[np.ndarray, "point 3"],
    seen: Sequence[Int[np.ndarray, " _"]],
    c2w: Float64[Tensor, "view 4 4"],
) -> Float[Tensor, "view 2"] | None:
    """Return the depth range of each view's points, with margins; None if no view saw enough."""
    ranges = torch.full((len(seen), 2), torch.nan)
    cameras = Cameras(torch.eye(3, dtype=torch.float64).expand(len(seen), 3, 3), c2w)
    for view, own in enumerate(seen):
        depths = to_camera(torch.from_numpy(positions[own]), cameras[view])[..., 2]
        depths = depths[depths.isfinite() & (depths > 0)]
        if len(depths) >= _MIN_POINTS:
            bounds = np.quantile(depths.numpy(), _PERCENTILES)
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
        raise UserError(f"{path}: no image was registered; run COLMAP again.")
    names = [image.name for image in images.values()]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path}: {twice!r} is there twice; export the model again.")
    for image in images.values():
        inside = PurePosixPath(image.name.replace("\\", "/"))
        if not image.name.strip() or ".." in inside.parts:
            raise UserError(
                f"{path}: the COLMAP model has an image named {image.name[:80]!r}; run COLMAP with "
                "--image_path on the folder of the photos, or above it."
            )
        if image.camera not in lenses:
            raise UserError(
                f"{path}: {image.name!r} was taken by camera {image.camera}, which the model does "
                "not have. Copy cameras and images from the same model."
            )


def _c2w(image: ColmapImage, path: Path) -> Float64[Tensor, "4 4"]:
    source = f"{path} ({image.name!r})"
    if not 0.5 < float(np.linalg.norm(image.quaternion)) < 2:
        raise UserError(f"{source}: the quaternion {image.quaternion} is no rotation.")
    rotation = Rotation.from_quat(image.quaternion, scalar_first=True).inv().as_matrix()
    center = -rotation @ np.array(image.translation)
    return rigid_c2w(torch.from_numpy(np.concatenate([rotation, center[:, None]], 1)), source)


def _warn_of_rounding(
    images: Mapping[int, ColmapImage], c2w: Float64[Tensor, "view 4 4"], path: Path
) -> None:
    """Say that text files of six digits, as COLMAP wrote them for long, lost where cameras are."""
    numbers = [number for image in images.values() for number in image.translation]
    largest = max(map(abs, numbers))
    if largest == 0 or any(float(f"{number:.6g}") != number for number in numbers):
        return
    step = 10.0 ** (math.floor(math.log10(largest)) - 5)
    spread = (c2w[:, :3, 3] - c2w[:, :3, 3].mean(0)).norm(dim=-1).mean().item()
    if step > _MAX_ROUNDING * spread:
        warn_once(
            f"{path}: positions are rounded to {step:g}, where cameras stand {spread:.3g} from "
            "their middle: six digits are too few so far from the origin. Give the binary model, "
            "from which this was converted, instead (images.bin)"
        )


def _points(model: Path) -> ColmapPoints:
    path = find_model_file(model, "points3D")
    if path is not None:
        return read_points(path)
    warn_once(f"{model}: has no points3D; near and far are guessed from the cameras")
    return ColmapPoints(np.zeros((0, 3)), {})
