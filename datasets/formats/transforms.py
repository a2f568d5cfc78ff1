"""The reader of instant-ngp's and nerfstudio's scenes: photos with a ``transforms.json``.

Numbers stand at the top of the file for all frames, or in a frame for that one: ``fl_x fl_y cx cy
w h``, ``camera_angle_x camera_angle_y`` (radians) in place of focal lengths, ``k1 k2 k3 k4 p1 p2``.
``depth_file_path`` names a map of z-depths, to be multiplied with ``depth_unit_scale_factor``
(0.001 unless given, as nerfstudio has it), to give the units of the camera positions.
``transform_matrix`` is camera-to-world with OpenGL's axes: right, up, backwards.
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from datasets.formats.checks import check_pinhole, rigid_c2w
from datasets.formats.images import DepthFile, Lens, LensModel, read_image_size
from datasets.formats.options import ReadOptions, Size
from datasets.formats.photo_files import (
    Photo,
    by_number,
    common_spelling,
    find_image,
    list_folder,
    photo_scene,
    read_sizes,
    shortened,
    warn_of_unused,
)
from datasets.posed_scene import PosedScene
from utils.errors import UserError
from utils.files import read_json

_FILE_NAME = "transforms.json"
_MAX_BYTES = 1 << 25
_NUMBERS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_angle_y")
_COEFFICIENTS = ("k1", "k2", "k3", "k4", "p1", "p2")
_DEPTH_SCALE = "depth_unit_scale_factor"
_PERSPECTIVE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
_FISHEYE_MODEL = "OPENCV_FISHEYE"


@dataclass(frozen=True)
class Frame:
    """One frame of the file, checked."""

    source: str
    """Begins error messages."""
    file: Path
    file_path: str
    """As the file has it, in a common spelling: no ``./``, slashes forward."""
    mask_path: str | None
    depth_path: str | None
    depth_scale: float
    c2w: Float64[Tensor, "4 4"]
    numbers: Mapping[str, float]
    """The frame's own, else the file's. Only what is there."""
    model: LensModel


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene from its JSON file, or from the folder that holds ``transforms.json``.

    Lens distortion is undone on reading, with the same focal length and principal point; pixels
    that a photo does not show then, or that its ``mask_path`` blackens, leave the mask.
    """
    path = _find_file(folder)
    frames, near_far = read_transforms_file(path)
    photos = frame_photos(frames)
    warn_of_unused((photo.path for photo in photos), path)
    return photo_scene(
        path.resolve().parent.name,
        path,
        photos,
        [frame.c2w for frame in frames],
        options,
        near_far,
        view_names=tuple(frame.file_path for frame in frames),
    )


def read_transforms_file(path: Path) -> tuple[list[Frame], tuple[float, float] | None]:
    """Return a file's frames, by the numbers in their names, and its depth range if it has one.

    Images are not looked at.
    """
    content = read_json(path, "camera file", _MAX_BYTES)
    entries = content.get("frames")
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: 'frames' must be a list of cameras, one for each image.")
    frames = [_parse_frame(entry, content, path, n) for n, entry in enumerate(entries)]
    frames.sort(key=lambda frame: (by_number(frame.file_path), frame.file_path))
    for first, second in pairwise(frames):
        if first.file_path == second.file_path:
            raise UserError(f"{second.source}: {second.file_path!r} has two frames; remove one.")
    range_of_file = _parse_numbers(content, ("near", "far"), str(path))
    if len(range_of_file) == 1:
        raise UserError(f"{path}: gives {next(iter(range_of_file))} alone; give near and far.")
    return frames, (range_of_file["near"], range_of_file["far"]) if range_of_file else None


def frame_lens(frame: Frame, size: Size) -> Lens:
    """Return the camera model of a frame whose image is of ``size``."""
    numbers, (height, width) = frame.numbers, size
    stated = numbers.get("w", width), numbers.get("h", height)
    if stated != (width, height):
        raise UserError(
            f"{frame.source}: speaks of images of {stated[0]:g}x{stated[1]:g}, but "
            f"{frame.file_path!r} is {width}x{height}; scale w, h, fl_x, fl_y, cx and cy to it."
        )
    focal_x, focal_y = _focal(frame, "x", width), _focal(frame, "y", height)
    if focal_x is None and focal_y is None:
        raise UserError(f"{frame.source}: gives neither fl_x nor camera_angle_x.")
    focal = (focal_x or focal_y or 0.0, focal_y or focal_x or 0.0)
    center = numbers.get("cx", width / 2), numbers.get("cy", height / 2)
    check_pinhole(focal, center, size, frame.source)
    return Lens(frame.model, focal, center, _coefficients(frame))


def frame_photos(frames: Sequence[Frame]) -> list[Photo]:
    """Find photo, mask, depth map and lens of every frame; only headers of images are read."""
    images, photos = _find_images(frames), []
    for frame, image, size in zip(frames, images, read_sizes(images), strict=True):
        lens, mask, depth = frame_lens(frame, size), None, None
        if frame.mask_path:
            path = find_image(frame.file.parent, frame.mask_path)
            mask = _require(frame, "mask", frame.mask_path, path)
            read_image_size(mask)
        if frame.depth_path is not None:
            path = frame.file.parent / frame.depth_path
            found = _require(frame, "depth map", frame.depth_path, path)
            depth = DepthFile(found, frame.depth_scale)
        photos.append(Photo(image, size, lens.intrinsics, lens, mask, depth))
    return photos


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
    raise UserError(f"{given}: the folder holds no {_FILE_NAME}; {advice}.")


def _find_images(frames: Sequence[Frame]) -> list[Path]:
    found = [(frame, find_image(frame.file.parent, frame.file_path)) for frame in frames]
    missing = [frame for frame, path in found if path is None]
    if missing:
        names = shortened([repr(frame.file_path[:80]) for frame in missing])
        raise UserError(
            f"{missing[0].file}: the images of {len(missing)} of {len(found)} frames are missing "
            f"({names}), looked for from {missing[0].file.parent}. Restore or remove them."
        )
    images: dict[Path, Path] = {}
    for frame, image in found:
        assert image is not None
        if image.resolve() in images:
            raise UserError(f"{frame.file}: {image} belongs to two frames; remove one.")
        images[image.resolve()] = image
    return list(images.values())


def _require(frame: Frame, what: str, name: str, path: Path | None) -> Path:
    if path is None or not os.path.isfile(path):
        place = f"{frame.source}: the {what} {name[:80]!r}"
        raise UserError(f"{place} is missing. Restore it, or remove its name.")
    return path


def _parse_frame(entry: object, shared: Mapping[str, object], file: Path, number: int) -> Frame:
    source = f"{file}, frame {number}"
    if not isinstance(entry, dict):
        raise UserError(f"{source}: expected an object, found {reprlib.repr(entry)}.")
    file_path = entry.get("file_path")
    mask_path, depth_path = entry.get("mask_path"), entry.get("depth_file_path")
    if not isinstance(file_path, str) or not file_path.strip():
        raise UserError(f"{source}: file_path must name an image, found {reprlib.repr(file_path)}.")
    for key, value in (("mask_path", mask_path), ("depth_file_path", depth_path)):
        if value is not None and not isinstance(value, str):
            raise UserError(f"{source}: {key} must name a file, found {reprlib.repr(value)}.")
    source, merged = f"{source} ({file_path[:80]!r})", {**shared, **entry}
    numbers = _parse_numbers(merged, (*_NUMBERS, *_COEFFICIENTS, _DEPTH_SCALE), source)
    # Depths are in thousandths unless the file says otherwise.
    depth_scale = numbers.pop(_DEPTH_SCALE, 1e-3)
    if depth_scale <= 0:
        raise UserError(f"{source}: {_DEPTH_SCALE} must be positive, found {depth_scale:g}.")
    return Frame(
        source=source,
        file=file,
        file_path=common_spelling(file_path),
        mask_path=None if mask_path is None else common_spelling(mask_path),
        depth_path=None if depth_path is None else common_spelling(depth_path),
        depth_scale=depth_scale,
        c2w=_parse_pose(entry.get("transform_matrix"), source),
        numbers=numbers,
        model=_parse_model(merged, source),
    )


def _parse_pose(matrix: object, source: str) -> Float64[Tensor, "4 4"]:
    expected = f"{source}: transform_matrix must be 4 rows of 4 numbers"
    if not isinstance(matrix, list) or len(matrix) not in (3, 4):
        raise UserError(f"{expected}, found {reprlib.repr(matrix)}.")
    for row in matrix:
        if not isinstance(row, list) or len(row) != 4 or not all(map(_is_number, row)):
            raise UserError(f"{expected}, found {reprlib.repr(row)}.")
    if [float(number) for number in sum(matrix[3:], [])] not in ([], [0.0, 0.0, 0.0, 1.0]):
        raise UserError(f"{expected}, the last 0 0 0 1, found {reprlib.repr(matrix[3])}.")
    right, up, backwards, center = torch.tensor(matrix[:3], dtype=torch.float64).unbind(-1)
    return rigid_c2w(torch.stack([right, -up, -backwards, center], -1), source)


def _parse_numbers(
    values: Mapping[str, object], keys: tuple[str, ...], source: str
) -> dict[str, float]:
    for key in keys:
        if key in values and not _is_number(values[key]):
            raise UserError(
                f"{source}: {key} must be a finite number, found {reprlib.repr(values[key])}."
            )
    return {key: float(str(values[key])) for key in keys if key in values}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _parse_model(values: Mapping[str, object], source: str) -> LensModel:
    model = values.get("camera_model", "OPENCV")
    if values.get("is_fisheye") is True or model == _FISHEYE_MODEL:
        return "fisheye"
    if model not in _PERSPECTIVE_MODELS:
        raise UserError(
            f"{source}: camera_model {reprlib.repr(model)} is not supported; there are "
            f"{', '.join(_PERSPECTIVE_MODELS)} and {_FISHEYE_MODEL}."
        )
    return "perspective"


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
    k1, k2, k3, k4, p1, p2 = (frame.numbers.get(key, 0.0) for key in _COEFFICIENTS)
    if frame.model == "fisheye":
        return k1, k2, k3, k4
    if k4:
        raise UserError(
            f"{frame.source}: k4 {k4:g} is no coefficient of a perspective lens in OpenCV; "
            f"undistort the images first, or say camera_model {_FISHEYE_MODEL} if it is one."
        )
    return k1, k2, p1, p2, k3
