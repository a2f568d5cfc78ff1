"""The sparse points of a COLMAP model: which view saw which point.

COLMAP's binary format as its documentation describes it ("Output Format"). A folder may lack
``images.bin``, as those of the LLFF scenes do; images are then numbered in the order of their
names.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.errors import UserError

_POINT = struct.Struct("<Q3d3BdQ")
_IMAGE = struct.Struct("<I7dI")
_COUNT = struct.Struct("<Q")
_OBSERVATION_BYTES = 24


@dataclass(frozen=True)
class SparsePoints:
    """Triangulated points."""

    positions: Float[Tensor, "point 3"]
    """In the world of COLMAP's cameras."""
    seen: tuple[Int[Tensor, " _"], ...]
    """For every image, in the order of the images' names, which points it saw."""


def read_colmap_points(folder: Path) -> SparsePoints:
    """Read ``points3D.bin``, and ``images.bin`` if it is there.

    Raises:
        UserError: A file is missing or damaged.
    """
    path = folder / "points3D.bin"
    content = _read(path)
    try:
        positions, tracks = _parse_points(content)
        names = _image_names(folder / "images.bin")
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{folder}: not a readable COLMAP model ({error})") from error
    images = sorted(names, key=lambda image: names[image]) if names else sorted(tracks)
    seen = tuple(torch.tensor(tracks.get(image, []), dtype=torch.int64) for image in images)
    return SparsePoints(torch.tensor(positions, dtype=torch.float32).reshape(-1, 3), seen)


def _parse_points(content: bytes) -> tuple[list[tuple[float, ...]], dict[int, list[int]]]:
    """Return positions, and for each image number the points that it saw."""
    positions: list[tuple[float, ...]] = []
    tracks: dict[int, list[int]] = {}
    offset = _COUNT.size
    for number in range(_COUNT.unpack_from(content)[0]):
        _, *position, _, _, _, _, length = _POINT.unpack_from(content, offset)
        offset += _POINT.size
        # Pairs of the image's number and the number of a feature in it.
        track = struct.unpack_from(f"<{2 * length}I", content, offset)
        offset += 8 * length
        positions.append(tuple(position))
        for image in set(track[::2]):
            tracks.setdefault(image, []).append(number)
    if offset != len(content):
        raise ValueError(f"points3D.bin has {len(content)} bytes where {offset} were expected")
    return positions, tracks


def _image_names(path: Path) -> dict[int, str]:
    """Return the names of all images by number; none if there is no such file."""
    if not path.is_file():
        return {}
    content = _read(path)
    names: dict[int, str] = {}
    offset = _COUNT.size
    for _ in range(_COUNT.unpack_from(content)[0]):
        image = _IMAGE.unpack_from(content, offset)[0]
        start = offset + _IMAGE.size
        end = content.index(b"\0", start)
        names[image] = content[start:end].decode()
        observations = _COUNT.unpack_from(content, end + 1)[0]
        offset = end + 1 + _COUNT.size + observations * _OBSERVATION_BYTES
    return names


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the COLMAP model ({error.strerror})") from error
