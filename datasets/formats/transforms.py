"""The reader of instant-ngp's and nerfstudio's scenes: photos with a ``transforms.json``."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from datasets.formats.checks import check_aspect, check_pinhole
from datasets.formats.declared_splits import declared_splits
from datasets.formats.decoding import read_image_size
from datasets.formats.foreign import describe_foreign
from datasets.formats.image_files import (
    ImageFinder,
    choose_image_folder,
    list_folder,
    shrinkage,
)
from datasets.formats.images import DepthFile, Lens
from datasets.formats.masks import MaskFile
from datasets.formats.options import ReadOptions, Size
from datasets.formats.photo_files import (
    Photo,
    photo_scene,
    shortened,
    sizes_for_cameras,
    warn_of_unused,
    warn_once,
)
from datasets.formats.transforms_file import (
    COEFFICIENTS,
    FISHEYE_MODEL,
    Frame,
    TransformsFile,
    read_transforms_file,
)
from datasets.posed_scene import PosedScene
from utils.errors import UserError

_FILE_NAME = "transforms.json"


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene from its JSON file, or from the folder that holds ``transforms.json``.

    Frames whose image is missing are left out. Lens distortion is undone on reading, with the same
    focal length and principal point; pixels that a photo does not show then, or that its
    ``mask_path`` blackens or its ``dynamic_mask_path`` whitens, leave the mask.
    """
    path = _find_file(folder)
    return scene_of_file(path, read_transforms_file(path), options)


def scene_of_file(path: Path, file: TransformsFile, options: ReadOptions) -> PosedScene:
    """Put a scene together from frames, whose images are looked for beside ``path``."""
    frames, images, options = find_images(file.frames, options)
    photos = frame_photos(frames, images)
    warn_of_unused(images, path, [mask.path for photo in photos for mask in photo.masks])
    return photo_scene(
        path.resolve().parent.name,
        path,
        photos,
        [frame.c2w for frame in frames],
        options,
        file.near_far,
        view_names=tuple(frame.file_path for frame in frames),
        splits=declared_splits(file.lists, [frame.file_path for frame in frames], path),
    )


def find_images(
    frames: Sequence[Frame], options: ReadOptions
) -> tuple[list[Frame], list[Path], ReadOptions]:
    """Return the frames whose image is there, the images, and how to read them.

    Where none of the images is, shrunk copies in folders such as images_4 stand in for them.
    """
    finder = ImageFinder(frames[0].file.parent)
    found = {place: finder(frame.file_path) for place, frame in enumerate(frames)}
    there = {place: path for place, path in found.items() if path is not None}
    if not there:
        there, options = _find_copies(finder, frames, options)
    missing = [frame for place, frame in enumerate(frames) if place not in there]
    of_file = (missing or frames)[0].file
    count = f"{of_file}: the images of {len(missing)} of {len(frames)} frames are missing"
    names = shortened([repr(frame.file_path[:80]) for frame in missing])
    if not there:
        raise UserError(f"{count} ({names}), looked for from {finder.folder}. Restore them.")
    if missing:
        warn_once(f"{count}, which are left out: {names}")
    images: dict[Path, Path] = {}
    for image in there.values():
        if image.resolve() in images:
            raise UserError(f"{frames[0].file}: {image} belongs to two frames; remove one.")
        images[image.resolve()] = image
    return [frames[place] for place in there], list(images.values()), options


def frame_photos(frames: Sequence[Frame], images: Sequence[Path]) -> list[Photo]:
    """Find mask, depth map and lens of every frame's image; only headers of images are read."""
    finder, photos = ImageFinder(frames[0].file.parent), []
    natives = [_native_size(frame, image) for frame, image in zip(frames, images, strict=True)]
    sizes = sizes_for_cameras(images, natives, frames[0].file)
    for frame, image, native, (size, upright) in zip(frames, images, natives, sizes, strict=True):
        depth, masks = None, []
        if native is not None:
            check_aspect(size, native, image, frame.source)
        lens = frame_lens(frame, native or size)
        lens = lens.resized(size[1] / (native or size)[1], size[0] / (native or size)[0])
        for name, moving in ((frame.mask_path, False), (frame.dynamic_mask_path, True)):
            if name is not None:
                masks.append(MaskFile(_require(frame, "mask", name, finder), moving))
                read_image_size(masks[-1].path)
        if frame.depth_path is not None:
            found = _require(frame, "depth map", frame.depth_path, finder)
            depth = DepthFile(found, frame.depth_scale)
        photos.append(Photo(image, size, lens.intrinsics, lens, tuple(masks), depth, upright))
    return photos


def frame_lens(frame: Frame, size: Size) -> Lens:
    """Return the camera model of a frame, for images of the size that it speaks of."""
    numbers, (height, width) = frame.numbers, size
    focal_x, focal_y = _focal(frame, "x", width), _focal(frame, "y", height)
    if focal_x is None and focal_y is None:
        raise UserError(f"{frame.source}: gives neither fl_x nor camera_angle_x.")
    focal = (focal_x or focal_y or 0.0, focal_y or focal_x or 0.0)
    center = numbers.get("cx", width / 2), numbers.get("cy", height / 2)
    check_pinhole(focal, center, size, frame.source)
    return Lens(frame.model, focal, center, _coefficients(frame))


def _native_size(frame: Frame, image: Path) -> Size | None:
    """Return the size of images that a frame's numbers speak of, if that can be known."""
    if "w" in frame.numbers and "h" in frame.numbers:
        return round(frame.numbers["h"]), round(frame.numbers["w"])
    factor = shrinkage(image, frame.file_path)
    height, width = read_image_size(image)
    return (height * factor, width * factor) if factor > 1 else None


def _find_copies(
    finder: ImageFinder, frames: Sequence[Frame], options: ReadOptions
) -> tuple[dict[int, Path], ReadOptions]:
    copies: dict[Path, dict[int, Path]] = {}
    for place, frame in enumerate(frames):
        for folder, path in finder.shrunk(frame.file_path).items():
            copies.setdefault(folder, {})[place] = path
    if not copies:
        return {}, options
    most = max(len(found) for found in copies.values())
    full = {folder: found for folder, found in copies.items() if len(found) == most}
    sizes = {folder: read_image_size(next(iter(found.values()))) for folder, found in full.items()}
    folder, options = choose_image_folder(sizes, options)
    warn_once(f"{frames[0].file}: its images are not there; those in {folder.name} are read")
    return full[folder], options


def _find_file(given: Path) -> Path:
    if not given.is_dir():
        if not os.path.isfile(given):
            raise UserError(f"{given}: no such folder or file; give the folder of {_FILE_NAME}.")
        return given
    if (given / _FILE_NAME).is_file():
        return given / _FILE_NAME
    others = [entry.name for entry in list_folder(given) if entry.suffix == ".json"]
    some = f"give the path of one of {shortened(others)}"
    advice = some if others else "it holds no JSON at all"
    problem = f"{given}: the folder holds no {_FILE_NAME}; {advice}."
    raise UserError(describe_foreign(given) or problem)


def _require(frame: Frame, what: str, name: str, finder: ImageFinder) -> Path:
    path = finder(name) or next(iter(finder.shrunk(name).values()), None)
    if path is None:
        place = f"{frame.source}: the {what} {name[:80]!r}"
        raise UserError(f"{place} is missing. Restore it, or remove its name.")
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
            f"{frame.source}: k4 {k4:g} is no coefficient of a perspective lens in OpenCV; "
            f"undistort the images first, or say camera_model {FISHEYE_MODEL} if it is one."
        )
    return k1, k2, p1, p2, k3
