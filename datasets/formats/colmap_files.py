"""COLMAP's sparse models: cameras, images and points, from binary or text files.

Both formats as COLMAP's documentation describes them ("Output Format"; Schoenberger and Frahm,
Structure-from-Motion Revisited, CVPR 2016). Poses are world-to-camera, axes are OpenCV's and the
centre of the first pixel is at 0.5: only the direction of the map differs from the house
convention. Files are read whole, so sizes are bounded; no count is believed before as many bytes
are seen to be there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float64

from datasets.formats.colmap_parsing import (
    Cursor,
    Malformed,
    content_lines,
    finite_numbers,
    integers,
)
from utils.errors import UserError

_MAX_BYTES = 1 << 33
"""Of one file: a city has less."""
MODEL_PARAMETERS = {
    "SIMPLE_PINHOLE": 3,
    "PINHOLE": 4,
    "SIMPLE_RADIAL": 4,
    "RADIAL": 5,
    "OPENCV": 8,
    "OPENCV_FISHEYE": 8,
    "FULL_OPENCV": 12,
    "FOV": 5,
    "SIMPLE_RADIAL_FISHEYE": 4,
    "RADIAL_FISHEYE": 5,
    "THIN_PRISM_FISHEYE": 12,
}
"""Numbers of each camera model, in the order of COLMAP's model ids."""
_MODELS = tuple(MODEL_PARAMETERS)
_MAX_NAME = 1024
_ROLES = ("cameras", "images", "points3D")

FileContent = TypeVar("FileContent")


@dataclass(frozen=True)
class ColmapCamera:
    """A lens that one or several images share."""

    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class ColmapImage:
    """An image that was registered."""

    name: str
    camera: int
    quaternion: tuple[float, ...]
    """World-to-camera, the scalar first."""
    translation: tuple[float, ...]


@dataclass(frozen=True)
class ColmapPoints:
    """Triangulated points, and for every image number which of them it saw."""

    positions: Float64[np.ndarray, "point 3"]
    tracks: Mapping[int, list[int]]


def find_model_file(folder: Path, role: str) -> Path | None:
    """Return the binary file of a role (``cameras``, ``images``, ``points3D``), else the text."""
    candidates = (folder / f"{role}.bin", folder / f"{role}.txt")
    return next((path for path in candidates if path.is_file()), None)


def is_model(folder: Path) -> bool:
    """Say whether a folder holds cameras and images of a model."""
    return all(find_model_file(folder, role) is not None for role in _ROLES[:2])


def read_cameras(path: Path) -> dict[int, ColmapCamera]:
    """Read ``cameras.bin`` or ``cameras.txt``.

    Raises:
        UserError: The file is damaged, or names no camera model of COLMAP's.
    """
    return _read(path, _binary_cameras, _text_cameras)


def read_images(path: Path) -> dict[int, ColmapImage]:
    """Read ``images.bin`` or ``images.txt``, without the features of the images.

    Raises:
        UserError: The file is damaged.
    """
    return _read(path, _binary_images, _text_images)


def read_points(path: Path) -> ColmapPoints:
    """Read ``points3D.bin`` or ``points3D.txt``.

    Raises:
        UserError: The file is damaged.
    """
    return _read(path, _binary_points, _text_points)


def _read(
    path: Path,
    parse_binary: Callable[[Cursor], FileContent],
    parse_text: Callable[[str], FileContent],
) -> FileContent:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: larger than any sparse model ({_MAX_BYTES} bytes at most).")
        content = path.read_bytes()
        if path.suffix == ".txt":
            return parse_text(content.decode("utf-8"))
        cursor = Cursor(content)
        parsed = parse_binary(cursor)
        cursor.require_end()
        return parsed
    except OSError as error:
        raise UserError(f"{path}: cannot read the COLMAP model ({error.strerror}).") from error
    except (Malformed, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a readable COLMAP model ({error}). Export it again with COLMAP's "
            "model_converter."
        ) from error


def _binary_cameras(cursor: Cursor) -> dict[int, ColmapCamera]:
    cameras: dict[int, ColmapCamera] = {}
    for _ in range(cursor.count(least_bytes=48)):
        number, model, width, height = cursor.take("IiQQ")
        if not 0 <= model < len(_MODELS):
            raise Malformed(f"camera {number} has the unknown model {model}")
        name = _MODELS[model]
        parameters = cursor.take(f"{MODEL_PARAMETERS[name]}d")
        _add_camera(cameras, number, ColmapCamera(name, width, height, parameters))
    return cameras


def _binary_images(cursor: Cursor) -> dict[int, ColmapImage]:
    images: dict[int, ColmapImage] = {}
    for _ in range(cursor.count(least_bytes=73)):
        number, *pose, camera = cursor.take("I7dI")
        name = cursor.string()
        cursor.skip(24 * cursor.count(least_bytes=24))
        _add_image(images, number, ColmapImage(name, camera, tuple(pose[:4]), tuple(pose[4:])))
    return images


def _binary_points(cursor: Cursor) -> ColmapPoints:
    positions: list[tuple[float, ...]] = []
    tracks: dict[int, list[int]] = {}
    for number in range(cursor.count(least_bytes=51)):
        _, *position = cursor.take("Q3d")
        cursor.skip(11)  # Colour and error.
        # Pairs of the image's number and the number of a feature in it.
        track = cursor.take(f"{2 * cursor.count(least_bytes=8)}I")
        positions.append(tuple(position))
        for image in set(track[::2]):
            tracks.setdefault(image, []).append(number)
    return _points(positions, tracks)


def _text_cameras(text: str) -> dict[int, ColmapCamera]:
    cameras: dict[int, ColmapCamera] = {}
    for line in content_lines(text):
        words = line.split()
        if len(words) < 4 or words[1] not in MODEL_PARAMETERS:
            raise Malformed(f"expected 'id MODEL width height parameters', found {line[:80]!r}")
        number, width, height = integers([words[0], *words[2:4]])
        parameters = finite_numbers(words[4:], MODEL_PARAMETERS[words[1]])
        _add_camera(cameras, number, ColmapCamera(words[1], width, height, parameters))
    return cameras


def _text_images(text: str) -> dict[int, ColmapImage]:
    # Every second line lists features and may be empty.
    lines = [line.strip() for line in text.splitlines() if not line.startswith("#")]
    while lines and not lines[-1]:
        lines.pop()
    images: dict[int, ColmapImage] = {}
    for line in lines[::2]:
        words = line.split(maxsplit=9)
        if len(words) != 10:
            raise Malformed(f"expected 'id qw qx qy qz tx ty tz camera name', found {line[:80]!r}")
        number, camera = integers([words[0], words[8]])
        pose = finite_numbers(words[1:8], 7)
        _add_image(images, number, ColmapImage(words[9], camera, pose[:4], pose[4:]))
    return images


def _text_points(text: str) -> ColmapPoints:
    positions: list[tuple[float, ...]] = []
    tracks: dict[int, list[int]] = {}
    for number, line in enumerate(content_lines(text)):
        words = line.split()
        if len(words) < 8 or len(words) % 2:
            raise Malformed(f"expected 'id x y z r g b error track', found {line[:80]!r}")
        positions.append(finite_numbers(words[1:4], 3))
        for image in set(integers(words[8::2])):
            tracks.setdefault(image, []).append(number)
    return _points(positions, tracks)


def _points(positions: list[tuple[float, ...]], tracks: Mapping[int, list[int]]) -> ColmapPoints:
    return ColmapPoints(np.array(positions, np.float64).reshape(-1, 3), tracks)


def _add_camera(cameras: dict[int, ColmapCamera], number: int, camera: ColmapCamera) -> None:
    if number in cameras:
        raise Malformed(f"camera {number} is there twice")
    cameras[number] = camera


def _add_image(images: dict[int, ColmapImage], number: int, image: ColmapImage) -> None:
    if number in images:
        raise Malformed(f"image {number} is there twice")
    if len(image.name) > _MAX_NAME:
        raise Malformed(f"image {number} has a name of {len(image.name)} characters")
    images[number] = image
