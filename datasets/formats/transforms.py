"""Reader of instant-ngp's and nerfstudio's scenes: photos with a ``transforms.json``."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from datasets.formats.checks import check_aspect, check_pinhole
from datasets.formats.images.decoding import read_image_size
from datasets.formats.images.depth_maps import DepthFile
from datasets.formats.images.image_files import (
    ImageFinder,
    choose_image_folder,
    downscale_factor,
    list_folder,
)
from datasets.formats.images.lenses import Lens
from datasets.formats.images.photos import (
    MaskFile,
    Photo,
    oriented_sizes,
    photo_scene,
    warn_of_unused_photos,
)
from datasets.formats.messages import join_names, warn_once
from datasets.formats.options import ReadOptions, Size
from datasets.formats.splits import declared_splits
from datasets.formats.transforms_file import (
    COEFFICIENTS,
    FISHEYE_MODEL,
    Frame,
    TransformsFile,
    parse_transforms,
    read_transforms_file,
)
from datasets.formats.unsupported import describe_unsupported
from datasets.posed_scene import PosedScene
from utils.errors import UserError

_FILE_NAME = "transforms.json"


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene from its JSON file, or from the folder that holds ``transforms.json``.

    Frames whose image is missing are left out. Lens distortion is undone on reading, with the same
    focal length and principal point.
    """
    path = _find_file(folder)
    return _build_scene(path, read_transforms_file(path), options)


def scene_of_frames(
    path: Path, frames: Sequence[dict[str, object]], options: ReadOptions, **keys: object
) -> PosedScene:
    """Build a scene from JSON frames; images are looked for beside ``path``.

    ``keys`` are keys at the top of ``transforms.json``; None leaves one out.
    """
    known = {key: value for key, value in keys.items() if value is not None}
    return _build_scene(path, parse_transforms({"frames": frames, **known}, path), options)


def _build_scene(path: Path, file: TransformsFile, options: ReadOptions) -> PosedScene:
    frames, images, options = find_images(file.frames, options)
    photos = build_photos(frames, images)
    warn_of_unused_photos(images, path, [mask.path for photo in photos for mask in photo.masks])
    view_names = tuple(frame.file_path for frame in frames)
    return photo_scene(
        path.resolve().parent.name,
        path,
        photos,
        [frame.c2w for frame in frames],
        options,
        file.near_far,
        view_names=view_names,
        splits=declared_splits(file.lists, view_names, path),
    )


def find_images(
    frames: Sequence[Frame], options: ReadOptions
) -> tuple[list[Frame], list[Path], ReadOptions]:
    """Return the frames whose image exists, the images, and the options to read them with.

    If no image exists, downscaled copies in folders such as images_4 are used.
    """
    finder = ImageFinder(frames[0].file.parent)
    images = {n: path for n, frame in enumerate(frames) if (path := finder(frame.file_path))}
    if not images:
        images, options = _find_downscaled(finder, frames, options)
    missing = [frame for n, frame in enumerate(frames) if n not in images]
    if missing:
        names = join_names([repr(frame.file_path[:80]) for frame in missing])
        problem = f"{missing[0].file}: the images of {len(missing)} of {len(frames)} frames are"
        if not images:
            raise UserError(
                f"{problem} missing ({names}), looked for from {finder.folder}. Restore them."
            )
        warn_once(f"{problem} missing, which are left out: {names}")
    used: set[Path] = set()
    for image in images.values():
        if image.resolve() in used:
            raise UserError(f"{frames[0].file}: {image} belongs to two frames; remove one.")
        used.add(image.resolve())
    return [frames[n] for n in images], list(images.values()), options


def build_photos(frames: Sequence[Frame], images: Sequence[Path]) -> list[Photo]:
    """Find the masks, depth map and lens of each frame's image, reading image headers only."""
    finder, photos = ImageFinder(frames[0].file.parent), []
    stated = [_stated_size(frame, image) for frame, image in zip(frames, images, strict=True)]
    sizes = oriented_sizes(images, stated, frames[0].file)
    for frame, image, full, (size, upright) in zip(frames, images, stated, sizes, strict=True):
        if full is not None:
            check_aspect(size, full, image, frame.source)
        height, width = full or size
        lens = _build_lens(frame, (height, width)).resized(size[1] / width, size[0] / height)
        masks, depth = [], None
        for name, is_dynamic in ((frame.mask_path, False), (frame.dynamic_mask_path, True)):
            if name is not None:
                masks.append(MaskFile(_find_file_of(frame, "mask", name, finder), is_dynamic))
                read_image_size(masks[-1].path)
        if frame.depth_path is not None:
            path = _find_file_of(frame, "depth map", frame.depth_path, finder)
            depth = DepthFile(path, frame.depth_scale)
        photos.append(Photo(image, size, lens.intrinsics, lens, tuple(masks), depth, upright))
    return photos


def _build_lens(frame: Frame, size: Size) -> Lens:
    """Return the lens of a frame, for images of the size that its numbers refer to."""
    height, width = size
    focal_x, focal_y = _focal(frame, "x", width), _focal(frame, "y", height)
    if focal_x is None and focal_y is None:
        raise UserError(f"{frame.source}: has neither fl_x nor camera_angle_x; add one.")
    focal = (focal_x or focal_y or 0.0, focal_y or focal_x or 0.0)
    center = frame.numbers.get("cx", width / 2), frame.numbers.get("cy", height / 2)
    check_pinhole(focal, center, size, frame.source)
    return Lens(frame.model, focal, center, _coefficients(frame))


def _stated_size(frame: Frame, image: Path) -> Size | None:
    """Return the image size that a frame's numbers refer to, if known."""
    if "w" in frame.numbers and "h" in frame.numbers:
        return round(frame.numbers["h"]), round(frame.numbers["w"])
    factor = downscale_factor(image, frame.file_path)
    height, width = read_image_size(image)
    return (height * factor, width * factor) if factor > 1 else None


def _find_downscaled(
    finder: ImageFinder, frames: Sequence[Frame], options: ReadOptions
) -> tuple[dict[int, Path], ReadOptions]:
    folders: dict[Path, dict[int, Path]] = {}
    for n, frame in enumerate(frames):
        for folder, path in finder.downscaled(frame.file_path).items():
            folders.setdefault(folder, {})[n] = path
    if not folders:
        return {}, options
    most = max(map(len, folders.values()))
    sizes = {
        folder: read_image_size(next(iter(images.values())))
        for folder, images in folders.items()
        if len(images) == most
    }
    folder, options = choose_image_folder(sizes, options)
    warn_once(
        f"{frames[0].file}: its images are missing; downscaled ones in {folder.name} are read"
    )
    return folders[folder], options


def _find_file(path: Path) -> Path:
    if not path.is_dir():
        if not os.path.isfile(path):
            raise UserError(f"{path}: no such folder or file; give the folder of {_FILE_NAME}.")
        return path
    if (path / _FILE_NAME).is_file():
        return path / _FILE_NAME
    others = [entry.name for entry in list_folder(path) if entry.suffix == ".json"]
    advice = f"give the path of one of {join_names(others)}" if others else "it holds no JSON file"
    problem = f"{path}: the folder holds no {_FILE_NAME}; {advice}."
    raise UserError(describe_unsupported(path) or problem)


def _find_file_of(frame: Frame, kind: str, name: str, finder: ImageFinder) -> Path:
    path = finder(name) or next(iter(finder.downscaled(name).values()), None)
    if path is None:
        raise UserError(
            f"{frame.source}: the {kind} {name[:80]!r} is missing. Restore it, or remove its name."
        )
    return path


def _focal(frame: Frame, axis: str, side: int) -> float | None:
    if f"fl_{axis}" in frame.numbers:
        return frame.numbers[f"fl_{axis}"]
    angle = frame.numbers.get(f"camera_angle_{axis}")
    if angle is None:
        return None
    if frame.model == "fisheye" or not 0 < angle < math.pi:
        raise UserError(
            f"{frame.source}: camera_angle_{axis} {angle:g} gives no focal length"
            + (" of a fisheye; give fl_x and fl_y." if frame.model == "fisheye" else ".")
        )
    return side / (2 * math.tan(angle / 2))


def _coefficients(frame: Frame) -> tuple[float, ...]:
    k1, k2, k3, k4, p1, p2 = (frame.numbers.get(key, 0.0) for key in COEFFICIENTS)
    if frame.model == "fisheye":
        return k1, k2, k3, k4
    if k4:
        raise UserError(
            f"{frame.source}: k4 {k4:g} is not a coefficient of OpenCV's perspective lens. "
            f"Undistort the images, or set camera_model to {FISHEYE_MODEL} for a fisheye lens."
        )
    return k1, k2, p1, p2, k3
