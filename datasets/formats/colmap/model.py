"""COLMAP's sparse models: cameras, images and points, from binary or text files.

The formats are those of COLMAP's documentation ("Output Format"; Schoenberger and Frahm,
Structure-from-Motion Revisited, CVPR 2016). Poses are world-to-camera with OpenCV axes, and the
centre of the first pixel is at 0.5. Files are streamed, and every count is checked against the
bytes that are left before memory is allocated.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float64

from datasets.formats.colmap.binary_reader import MAX_NAME, BinaryReader, Malformed
from utils.errors import UserError
from utils.files import check_size

_MAX_BYTES = 1 << 33
_MAX_ENTRIES = 10**6
"""Of cameras and of images; points take less memory than their entries in the file."""
_MAX_LINE = 1 << 26
"""Characters of a text line, which may list all features of an image."""
_MAX_NUMBER = 1e30
"""Beyond this, products overflow in single precision."""
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
"""Number of parameters of each camera model, in the order of COLMAP's model ids."""
_MODELS = tuple(MODEL_PARAMETERS)

_Entry = TypeVar("_Entry")
_Point = tuple[tuple[float, ...], Sequence[int]]
"""Position, and the ids of the images that observe it."""


@dataclass(frozen=True)
class ColmapCamera:
    """A camera that one or several images share."""

    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class ColmapImage:
    """A registered image."""

    name: str
    camera: int
    quaternion: tuple[float, ...]
    """World-to-camera rotation, scalar first."""
    translation: tuple[float, ...]


@dataclass(frozen=True)
class ColmapPoints:
    """Triangulated points, and for each image id the indices of those that it observes."""

    positions: Float64[np.ndarray, "point 3"]
    tracks: Mapping[int, array[int]]


def find_model_file(folder: Path, role: str) -> Path | None:
    """Return the binary file of a role (``cameras``, ``images``, ``points3D``), else the text."""
    candidates = (folder / f"{role}.bin", folder / f"{role}.txt")
    return next((path for path in candidates if path.is_file()), None)


def read_cameras(path: Path) -> dict[int, ColmapCamera]:
    """Read ``cameras.bin`` or ``cameras.txt``."""
    with _errors_of(path):
        return _collect(_entries(path, _binary_cameras, _text_cameras))


def read_images(path: Path) -> dict[int, ColmapImage]:
    """Read ``images.bin`` or ``images.txt``, without the features of the images."""
    with _errors_of(path):
        return _collect(_entries(path, _binary_images, _text_images))


def read_points(path: Path) -> ColmapPoints:
    """Read ``points3D.bin`` or ``points3D.txt``."""
    positions = array("d")
    tracks: dict[int, array[int]] = {}
    with _errors_of(path):
        for index, (position, images) in _entries(path, _binary_points, _text_points):
            positions.extend(position)
            for image in set(images):
                tracks.setdefault(image, array("q")).append(index)
    return ColmapPoints(np.array(positions, np.float64).reshape(-1, 3), tracks)


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        check_size(path, _MAX_BYTES, "sparse model")
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot read the COLMAP model ({error.strerror}).") from error
    except (Malformed, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a readable COLMAP model ({error}). Export it again with COLMAP's "
            "model_converter."
        ) from error


def _entries(
    path: Path,
    parse_binary: Callable[[BinaryReader], Iterator[tuple[int, _Entry]]],
    parse_text: Callable[[Iterator[str]], Iterator[tuple[int, _Entry]]],
) -> Iterator[tuple[int, _Entry]]:
    if path.suffix == ".txt":
        yield from parse_text(_text_lines(path))
        return
    with path.open("rb") as file:
        reader = BinaryReader(file)
        yield from parse_binary(reader)
        if reader.bytes_left:
            raise Malformed(f"it has {reader.bytes_left} bytes too many at its end")


def _collect(entries: Iterator[tuple[int, _Entry]]) -> dict[int, _Entry]:
    collected: dict[int, _Entry] = {}
    for number, entry in entries:
        if number in collected:
            raise Malformed(f"entry {number} appears twice")
        collected[number] = entry
        if len(collected) > _MAX_ENTRIES:
            raise Malformed(f"it has more than {_MAX_ENTRIES} entries")
    return collected


def _binary_cameras(reader: BinaryReader) -> Iterator[tuple[int, ColmapCamera]]:
    for _ in range(reader.take_count(min_entry_bytes=48)):
        number, model, width, height = reader.take("IiQQ")
        if not 0 <= model < len(_MODELS):
            raise Malformed(f"camera {number} has the unknown model {model}")
        parameters = reader.take(f"{MODEL_PARAMETERS[_MODELS[model]]}d")
        yield number, ColmapCamera(_MODELS[model], width, height, parameters)


def _binary_images(reader: BinaryReader) -> Iterator[tuple[int, ColmapImage]]:
    for _ in range(reader.take_count(min_entry_bytes=73)):
        number, *pose, camera = reader.take("I7dI")
        name = reader.take_string()
        reader.skip(24 * reader.take_count(min_entry_bytes=24))  # Features.
        yield number, _image(name, camera, tuple(pose))


def _binary_points(reader: BinaryReader) -> Iterator[tuple[int, _Point]]:
    for index in range(reader.take_count(min_entry_bytes=51)):
        _, *position = reader.take("Q3d11x")  # The rest is colour and error.
        # Pairs of an image id and the index of a feature in it.
        track = reader.take(f"{2 * reader.take_count(min_entry_bytes=8)}I")
        yield index, (_checked(tuple(position)), track[::2])


def _text_lines(path: Path) -> Iterator[str]:
    """Yield the stripped lines that are neither empty nor comments."""
    with path.open(encoding="utf-8-sig") as file:
        while line := file.readline(_MAX_LINE):
            if len(line) == _MAX_LINE:
                raise Malformed(f"a line has more than {_MAX_LINE} characters")
            if not line.startswith("#") and (stripped := line.strip()):
                yield stripped


def _text_cameras(lines: Iterator[str]) -> Iterator[tuple[int, ColmapCamera]]:
    for line in lines:
        words = line.split()
        if len(words) < 4 or words[1] not in MODEL_PARAMETERS:
            raise Malformed(f"expected 'id MODEL width height parameters', found {line[:80]!r}")
        number, width, height = _integers([words[0], *words[2:4]])
        parameters = _finite_numbers(words[4:], MODEL_PARAMETERS[words[1]])
        yield number, ColmapCamera(words[1], width, height, parameters)


def _text_images(lines: Iterator[str]) -> Iterator[tuple[int, ColmapImage]]:
    # A line of features follows each image; it may be empty, and some programs omit it.
    for line in lines:
        if _lists_features(line):
            continue
        words = line.split(maxsplit=9)
        if len(words) != 10:
            raise Malformed(f"expected 'id qw qx qy qz tx ty tz camera name', found {line[:80]!r}")
        number, camera = _integers([words[0], words[8]])
        yield number, _image(words[9], camera, _finite_numbers(words[1:8], 7))


def _lists_features(line: str) -> bool:
    """Tell features, three numbers each, from an image, whose line ends in a name."""
    words = line.split()
    try:
        [float(word) for word in words[-3:]]
    except ValueError:
        return False
    return len(words) % 3 == 0


def _text_points(lines: Iterator[str]) -> Iterator[tuple[int, _Point]]:
    for index, line in enumerate(lines):
        words = line.split()
        if len(words) < 8 or len(words) % 2:
            raise Malformed(f"expected 'id x y z r g b error track', found {line[:80]!r}")
        yield index, (_finite_numbers(words[1:4], 3), _integers(words[8::2]))


def _image(name: str, camera: int, pose: tuple[float, ...]) -> ColmapImage:
    if len(name) > MAX_NAME:
        raise Malformed(f"an image has a name of {len(name)} characters")
    return ColmapImage(name, camera, pose[:4], pose[4:])


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
    if not all(abs(number) < _MAX_NUMBER for number in numbers):
        raise Malformed(f"the numbers {numbers} are not finite or beyond {_MAX_NUMBER:g}")
    return numbers
