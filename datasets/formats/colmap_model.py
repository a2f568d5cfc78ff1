"""COLMAP's sparse models: cameras, images and points, from binary or text files.

Both formats as COLMAP's documentation describes them ("Output Format"; Schoenberger and Frahm,
Structure-from-Motion Revisited, CVPR 2016). Poses are world-to-camera, axes are OpenCV's and the
centre of the first pixel is at 0.5. No count is believed before as many bytes are seen to be there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float64

from utils.errors import UserError
from utils.files import check_size

_MAX_BYTES = 1 << 33
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
_MAX_NAME = 1024

Entry = TypeVar("Entry")
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
    tracks: Mapping[int, list[int]]


def find_model_file(folder: Path, role: str) -> Path | None:
    """Return the binary file of a role (``cameras``, ``images``, ``points3D``), else the text."""
    candidates = (folder / f"{role}.bin", folder / f"{role}.txt")
    return next((path for path in candidates if path.is_file()), None)


def read_cameras(path: Path) -> dict[int, ColmapCamera]:
    """Read ``cameras.bin`` or ``cameras.txt``."""
    return _read(path, _binary_cameras, _text_cameras)


def read_images(path: Path) -> dict[int, ColmapImage]:
    """Read ``images.bin`` or ``images.txt``, without the features of the images."""
    return _read(path, _binary_images, _text_images)


def read_points(path: Path) -> ColmapPoints:
    """Read ``points3D.bin`` or ``points3D.txt``."""
    positions: list[tuple[float, ...]] = []
    tracks: dict[int, list[int]] = {}
    for number, (position, images) in _read(path, _binary_points, _text_points).items():
        positions.append(position)
        for image in set(images):
            tracks.setdefault(image, []).append(number)
    return ColmapPoints(np.array(positions, np.float64).reshape(-1, 3), tracks)


class _Malformed(Exception):
    """What stands there is not what the format says; the caller knows the file."""


class _Cursor:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._offset = 0

    @property
    def bytes_left(self) -> int:
        return len(self._content) - self._offset

    def take(self, layout: str) -> tuple[Any, ...]:
        """Unpack values in the notation of ``struct``."""
        try:
            values = struct.unpack_from(f"<{layout}", self._content, self._offset)
        except struct.error:
            raise self._ends_early() from None
        self._offset += struct.calcsize(f"<{layout}")
        return values

    def count(self, least_bytes: int) -> int:
        """Read how many entries follow, each of at least so many bytes."""
        number = self.take("Q")[0]
        if number * least_bytes > self.bytes_left:
            raise _Malformed(
                f"{number} entries are promised at byte {self._offset - 8}, and "
                f"{self.bytes_left} bytes follow; the file is cut or damaged"
            )
        return number

    def string(self) -> str:
        """Read up to the next zero byte."""
        end = self._content.find(b"\0", self._offset)
        if end < 0:
            raise self._ends_early()
        text = self._content[self._offset : end].decode("utf-8")
        self._offset = end + 1
        return text

    def _ends_early(self) -> _Malformed:
        return _Malformed(f"it ends early, at byte {len(self._content)}")


def _read(
    path: Path,
    parse_binary: Callable[[_Cursor], Iterator[tuple[int, Entry]]],
    parse_text: Callable[[str], Iterator[tuple[int, Entry]]],
) -> dict[int, Entry]:
    entries: dict[int, Entry] = {}
    try:
        check_size(path, _MAX_BYTES, "sparse model")
        content = path.read_bytes()
        text = path.suffix == ".txt"
        cursor = _Cursor(b"" if text else content)
        parsed = parse_text(content.decode("utf-8-sig")) if text else parse_binary(cursor)
        for number, entry in parsed:
            if number in entries:
                raise _Malformed(f"entry {number} is there twice")
            if isinstance(entry, ColmapImage) and len(entry.name) > _MAX_NAME:
                raise _Malformed(f"an image has a name of {len(entry.name)} characters")
            entries[number] = entry
        if cursor.bytes_left:
            raise _Malformed(f"it has {len(content)} bytes, {cursor.bytes_left} too many")
        return entries
    except OSError as error:
        raise UserError(f"{path}: cannot read the COLMAP model ({error.strerror}).") from error
    except (_Malformed, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a readable COLMAP model ({error}). Export it again with COLMAP's "
            "model_converter."
        ) from error


def _binary_cameras(cursor: _Cursor) -> Iterator[tuple[int, ColmapCamera]]:
    for _ in range(cursor.count(least_bytes=48)):
        number, model, width, height = cursor.take("IiQQ")
        if not 0 <= model < len(_MODELS):
            raise _Malformed(f"camera {number} has model {model}, which is unknown here")
        parameters = cursor.take(f"{MODEL_PARAMETERS[_MODELS[model]]}d")
        yield number, ColmapCamera(_MODELS[model], width, height, parameters)


def _binary_images(cursor: _Cursor) -> Iterator[tuple[int, ColmapImage]]:
    for _ in range(cursor.count(least_bytes=73)):
        number, *pose, camera = cursor.take("I7dI")
        name = cursor.string()
        cursor.take(f"{24 * cursor.count(least_bytes=24)}x")  # Features.
        yield number, ColmapImage(name, camera, tuple(pose[:4]), tuple(pose[4:]))


def _binary_points(cursor: _Cursor) -> Iterator[tuple[int, _Point]]:
    for number in range(cursor.count(least_bytes=51)):
        _, *position = cursor.take("Q3d11x")  # The rest is colour and error.
        # Pairs of the image's number and the number of a feature in it.
        track = cursor.take(f"{2 * cursor.count(least_bytes=8)}I")
        yield number, (_checked(tuple(position)), track[::2])


def _text_cameras(text: str) -> Iterator[tuple[int, ColmapCamera]]:
    for line in _content_lines(text):
        words = line.split()
        if len(words) < 4 or words[1] not in MODEL_PARAMETERS:
            raise _Malformed(f"expected 'id MODEL width height parameters', found {line[:80]!r}")
        number, width, height = _integers([words[0], *words[2:4]])
        parameters = _finite_numbers(words[4:], MODEL_PARAMETERS[words[1]])
        yield number, ColmapCamera(words[1], width, height, parameters)


def _text_images(text: str) -> Iterator[tuple[int, ColmapImage]]:
    # Every second line lists features and may be empty; some programs leave these lines out.
    lines = [line.strip() for line in text.splitlines() if not line.startswith("#")]
    while lines and not lines[-1]:
        lines.pop()
    left_out = len(lines) > 1 and not any(map(_lists_features, lines[1::2]))
    for line in lines if left_out else lines[::2]:
        words = line.split(maxsplit=9)
        if len(words) != 10:
            raise _Malformed(f"expected 'id qw qx qy qz tx ty tz camera name', found {line[:80]!r}")
        number, camera = _integers([words[0], words[8]])
        pose = _finite_numbers(words[1:8], 7)
        yield number, ColmapImage(words[9], camera, pose[:4], pose[4:])


def _lists_features(line: str) -> bool:
    """Tell a line of features, x y and a point's number each, from one that ends in a name."""
    words = line.split()
    try:
        numbers = [float(word) for word in words[-3:]]
    except ValueError:
        return False
    return len(words) % 3 == 0 and len(numbers) in (0, 3)


def _text_points(text: str) -> Iterator[tuple[int, _Point]]:
    for number, line in enumerate(_content_lines(text)):
        words = line.split()
        if len(words) < 8 or len(words) % 2:
            raise _Malformed(f"expected 'id x y z r g b error track', found {line[:80]!r}")
        yield number, (_finite_numbers(words[1:4], 3), tuple(_integers(words[8::2])))


def _content_lines(text: str) -> Iterator[str]:
    stripped = (line.strip() for line in text.splitlines())
    return (line for line in stripped if line and not line.startswith("#"))


def _integers(words: Sequence[str]) -> list[int]:
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) < 20):
            raise _Malformed(f"expected a whole number, found {word[:40]!r}")
    return [int(word) for word in words]


def _finite_numbers(words: Sequence[str], count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError as error:
        raise _Malformed(str(error)[:120]) from error
    if len(numbers) != count:
        raise _Malformed(f"expected {count} numbers, found {' '.join(words)[:80]!r}")
    return _checked(numbers)


def _checked(numbers: tuple[float, ...]) -> tuple[float, ...]:
    if not all(abs(number) < _FARTHEST for number in numbers):
        raise _Malformed(f"the numbers {numbers} are not finite or beyond {_FARTHEST:g}")
    return numbers
