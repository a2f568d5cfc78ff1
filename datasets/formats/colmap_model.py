"""COLMAP's sparse models: cameras, images and points, from binary or text files.

Both formats as COLMAP's documentation describes them ("Output Format"; Schoenberger and Frahm,
Structure-from-Motion Revisited, CVPR 2016). Poses are world-to-camera, axes are OpenCV's and the
centre of the first pixel is at 0.5. No count is believed before as many bytes are seen to be there.
Files are mapped or read line by line: only what is kept of them takes memory.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float64

from datasets.formats.bounded_files import (
    MAX_NAME,
    Cursor,
    Malformed,
    text_lines,
    without_empty_end,
)
from utils.errors import UserError
from utils.files import check_size

_MAX_BYTES = 1 << 33
_MAX_ENTRIES = 10**6
"""Of cameras and of images. A point takes less memory than its entry in the file."""
_FARTHEST = 1e30
"""No length of a model is larger; beyond it products overflow in single precision."""
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
    "RAD_TAN_THIN_PRISM_FISHEYE": 16,
    "SIMPLE_DIVISION": 4,
    "DIVISION": 5,
    "SIMPLE_FISHEYE": 3,
    "FISHEYE": 4,
    "EUCM": 6,
    "EQUIRECTANGULAR": 2,
}
"""Numbers of each camera model, in the order of COLMAP's model ids."""
_MODELS = tuple(MODEL_PARAMETERS)

Entry = TypeVar("Entry")
Source = TypeVar("Source")
Lines = Callable[[], Iterator[str]]
"""Opens a text file, each time from its beginning."""
_Point = tuple[tuple[float, ...], tuple[int, ...]]
"""Position, and the images that saw it."""


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
    tracks: Mapping[int, array[int]]


def find_model_file(folder: Path, role: str) -> Path | None:
    """Return the binary file of a role (``cameras``, ``images``, ``points3D``), else the text."""
    candidates = (folder / f"{role}.bin", folder / f"{role}.txt")
    return next((path for path in candidates if path.is_file()), None)


def read_cameras(path: Path) -> dict[int, ColmapCamera]:
    """Read ``cameras.bin`` or ``cameras.txt``."""
    return dict(_entries(path, _distinct(_binary_cameras), _distinct(_text_cameras)))


def read_images(path: Path) -> dict[int, ColmapImage]:
    """Read ``images.bin`` or ``images.txt``, without the features of the images."""
    return dict(_entries(path, _distinct(_binary_images), _distinct(_text_images)))


def read_points(path: Path) -> ColmapPoints:
    """Read ``points3D.bin`` or ``points3D.txt``."""
    positions = array("d")
    tracks: dict[int, array[int]] = {}
    for number, (position, images) in _entries(path, _binary_points, _text_points):
        positions.extend(position)
        for image in set(images):
            tracks.setdefault(image, array("q")).append(number)
    return ColmapPoints(np.array(positions, np.float64).reshape(-1, 3), tracks)


def _entries(
    path: Path,
    parse_binary: Callable[[Cursor], Iterator[tuple[int, Entry]]],
    parse_text: Callable[[Lines], Iterator[tuple[int, Entry]]],
) -> Iterator[tuple[int, Entry]]:
    """Yield the entries of a file; what is wrong with one of them is an error that names it."""
    try:
        check_size(path, _MAX_BYTES, "sparse model")
        if path.suffix == ".txt":
            yield from parse_text(partial(text_lines, path))
            return
        with path.open("rb") as file:
            cursor = Cursor(file)
            yield from parse_binary(cursor)
            if left := cursor.bytes_left:
                raise Malformed(f"it has {left} bytes too many at its end")
    except OSError as error:
        raise UserError(f"{path}: cannot read the COLMAP model ({error.strerror}).") from error
    except (Malformed, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a readable COLMAP model ({error}). Export it again with COLMAP's "
            "model_converter."
        ) from error


def _distinct(
    parse: Callable[[Source], Iterator[tuple[int, Entry]]],
) -> Callable[[Source], Iterator[tuple[int, Entry]]]:
    """Let a parser refuse entries that are there twice, or are too many."""

    def parsed(source: Source) -> Iterator[tuple[int, Entry]]:
        seen: set[int] = set()
        for number, entry in parse(source):
            if number in seen:
                raise Malformed(f"entry {number} is there twice")
            seen.add(number)
            if len(seen) > _MAX_ENTRIES:
                raise Malformed(f"it has more than {_MAX_ENTRIES} entries")
            if isinstance(entry, ColmapImage) and len(entry.name) > MAX_NAME:
                raise Malformed(f"an image has a name of {len(entry.name)} characters")
            yield number, entry

    return parsed


def _binary_cameras(cursor: Cursor) -> Iterator[tuple[int, ColmapCamera]]:
    for _ in range(cursor.count(least_bytes=48)):
        number, model, width, height = cursor.take("IiQQ")
        if not 0 <= model < len(_MODELS):
            raise Malformed(f"camera {number} has model {model}, which is unknown here")
        parameters = cursor.take(f"{MODEL_PARAMETERS[_MODELS[model]]}d")
        yield number, ColmapCamera(_MODELS[model], width, height, parameters)


def _binary_images(cursor: Cursor) -> Iterator[tuple[int, ColmapImage]]:
    for _ in range(cursor.count(least_bytes=73)):
        number, *pose, camera = cursor.take("I7dI")
        name = cursor.string()
        cursor.skip(24 * cursor.count(least_bytes=24))  # Features.
        yield number, ColmapImage(name, camera, tuple(pose[:4]), tuple(pose[4:]))


def _binary_points(cursor: Cursor) -> Iterator[tuple[int, _Point]]:
    for number in range(cursor.count(least_bytes=51)):
        _, *position = cursor.take("Q3d11x")  # The rest is colour and error.
        # Pairs of the image's number and the number of a feature in it.
        track = cursor.take(f"{2 * cursor.count(least_bytes=8)}I")
        yield number, (_checked(tuple(position)), track[::2])


def _text_cameras(lines: Lines) -> Iterator[tuple[int, ColmapCamera]]:
    for line in filter(None, lines()):
        words = line.split()
        if len(words) < 4 or words[1] not in MODEL_PARAMETERS:
            raise Malformed(f"expected 'id MODEL width height parameters', found {line[:80]!r}")
        number, width, height = _integers([words[0], *words[2:4]])
        parameters = _finite_numbers(words[4:], MODEL_PARAMETERS[words[1]])
        yield number, ColmapCamera(words[1], width, height, parameters)


def _text_images(lines: Lines) -> Iterator[tuple[int, ColmapImage]]:
    # Every second line lists features and may be empty; some programs leave these lines out.
    step = 1 if _features_are_left_out(lines()) else 2
    for line in itertools.islice(without_empty_end(lines()), None, None, step):
        words = line.split(maxsplit=9)
        if len(words) != 10:
            raise Malformed(f"expected 'id qw qx qy qz tx ty tz camera name', found {line[:80]!r}")
        number, camera = _integers([words[0], words[8]])
        pose = _finite_numbers(words[1:8], 7)
        yield number, ColmapImage(words[9], camera, pose[:4], pose[4:])


def _features_are_left_out(lines: Iterator[str]) -> bool:
    second = list(itertools.islice(map(_lists_features, without_empty_end(lines)), 1, None, 2))
    return bool(second) and not any(second)


def _lists_features(line: str) -> bool:
    """Tell a line of features, x y and a point's number each, from one that ends in a name."""
    words = line.split()
    try:
        numbers = [float(word) for word in words[-3:]]
    except ValueError:
        return False
    return len(words) % 3 == 0 and len(numbers) in (0, 3)


def _text_points(lines: Lines) -> Iterator[tuple[int, _Point]]:
    for number, line in enumerate(filter(None, lines())):
        words = line.split()
        if len(words) < 8 or len(words) % 2:
            raise Malformed(f"expected 'id x y z r g b error track', found {line[:80]!r}")
        yield number, (_finite_numbers(words[1:4], 3), tuple(_integers(words[8::2])))


def _integers(words: Sequence[str]) -> list[int]:
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) < 20):
            raise Malformed(f"expected a whole number, found {word[:40]!r}")
    return [int(word) for word in words]


def _finite_numbers(words: Sequence[str], count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError as error:
        raise Malformed(str(error)[:120]) from error
    if len(numbers) != count:
        raise Malformed(f"expected {count} numbers, found {' '.join(words)[:80]!r}")
    return _checked(numbers)


def _checked(numbers: tuple[float, ...]) -> tuple[float, ...]:
    if not all(abs(number) < _FARTHEST for number in numbers):
        raise Malformed(f"the numbers {numbers} are not finite or beyond {_FARTHEST:g}")
    return numbers
