"""MVSNet's camera files and pair lists, which DTU and BlendedMVS use.

A ``*_cam.txt`` holds ``extrinsic`` (world-to-camera 4x4), ``intrinsic`` (3x3) and a last line
``depth_min depth_interval [depth_num [depth_max]]`` (Yao et al., MVSNet, ECCV 2018). The farthest
depth is ``depth_max``, else ``depth_min + depth_num * depth_interval`` with 192 planes by default:
425 + 192 * 2.5 = 905 mm for DTU.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from datasets.formats.checks import is_pinhole, is_rigid
from datasets.formats.splits import content_lines
from utils.errors import UserError
from utils.files import check_size

CAMERA_NAME = re.compile(r"(\d{1,18})_cam\.txt")
_DEFAULT_PLANES = 192
_MAX_BYTES = 1 << 16
_MAX_NUMBER = 1e30
"""Larger numbers would not be finite in single precision after a change of units."""


@dataclass(frozen=True)
class CameraFile:
    """A validated camera file, in its own convention."""

    path: Path
    intrinsics: Float64[Tensor, "3 3"]
    w2c: Float64[Tensor, "4 4"]
    near: float
    far: float


def files_by_view(folder: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    """Return the files of a folder whose names match, by the number in it; there may be none."""
    return {int(match[1]): path for match, path in matching_files(folder, pattern)}


def matching_files(folder: Path, pattern: re.Pattern[str]) -> list[tuple[re.Match[str], Path]]:
    """Return the files of a folder whose names match, sorted by name."""
    if not folder.is_dir():
        return []
    entries = sorted(folder.iterdir())
    return [(match, path) for path in entries if (match := pattern.fullmatch(path.name))]


def read_camera_file(path: Path) -> CameraFile:
    """Read and validate a camera file."""
    try:
        check_size(path, _MAX_BYTES, "camera file")
        status = path.stat()
        return _read_cached(path, status.st_mtime_ns, status.st_size)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the camera file ({error}).") from error


def read_pairs(path: Path) -> dict[int, list[int]]:
    """Read MVSNet's ``pair.txt``: for each view its neighbours, best first."""
    lines = content_lines(path)
    pairs: dict[int, list[int]] = {}
    for head, line in zip(lines[1::2], lines[2::2], strict=False):
        at, problem = head, "expected a view"
        try:
            view = int(head[1])
            at, problem = line, "expected a count, then as many pairs of view and score"
            pairs[view] = _parse_neighbours(line[1].split())
        except ValueError as error:
            raise UserError(f"{path}, line {at[0]}: {problem}: {at[1][:80]!r}.") from error
    if not lines or lines[0][1] != str(len(pairs)) or len(lines) != 1 + 2 * len(pairs):
        raise UserError(f"{path}: the first line must count the views; {len(pairs)} follow it.")
    return pairs


@lru_cache(maxsize=1024)
def _read_cached(path: Path, modified: int, size: int) -> CameraFile:
    """Parse a file once for all scans that share it; the key changes with the file."""
    text = path.read_text(encoding="utf-8")
    numbered = enumerate((line.strip() for line in text.splitlines()), start=1)
    lines = [(number, line) for number, line in numbered if line]
    end = (lines[-1][0] + 1 if lines else 1, "")
    lines += [end] * (10 - len(lines))
    _expect(lines[0][1] == "extrinsic", path, lines[0], "expected the word 'extrinsic'")
    w2c = torch.tensor([_numbers(path, line, (4,)) for line in lines[1:5]], dtype=torch.float64)
    _expect(is_rigid(w2c), path, lines[1], "the extrinsic must be a rotation and translation")
    _expect(lines[5][1] == "intrinsic", path, lines[5], "expected the word 'intrinsic'")
    rows = [_numbers(path, line, (3,)) for line in lines[6:9]]
    intrinsics = torch.tensor(rows, dtype=torch.float64)
    _expect(is_pinhole(intrinsics), path, lines[6], "the intrinsic must be a pinhole camera's")
    near, interval, *more = _numbers(path, lines[9], (2, 3, 4))
    _expect(len(lines) == 10, path, lines[-1], "nothing may follow the depth range")
    far = more[1] if len(more) == 2 else near + (more or [_DEFAULT_PLANES])[0] * interval
    # In single precision, in which the range is used.
    near_far = torch.tensor([near, far], dtype=torch.float64).float().tolist()
    ordered = 0 < near_far[0] < near_far[1] < _MAX_NUMBER
    _expect(ordered, path, lines[9], "expected 0 < depth_min < depth_max")
    return CameraFile(path, intrinsics, w2c, near, far)


def _numbers(path: Path, line: tuple[int, str], counts: Sequence[int]) -> list[float]:
    try:
        numbers = [float(word) for word in line[1].split()]
    except ValueError:
        numbers = []
    finite = all(abs(number) < _MAX_NUMBER for number in numbers)
    expected = f"expected {' or '.join(map(str, counts))} finite numbers"
    _expect(finite and len(numbers) in counts, path, line, expected)
    return numbers


def _expect(holds: bool, path: Path, line: tuple[int, str], problem: str) -> None:
    if not holds:
        number, text = line
        raise UserError(f"{path}, line {number}: {problem}, found {text[:80]!r}.")


def _parse_neighbours(words: Sequence[str]) -> list[int]:
    neighbours = [int(word) for word in words[1::2]]
    scores = [float(word) for word in words[2::2]]
    if not len(neighbours) == len(scores) == int(words[0]):
        raise ValueError("count and content differ")
    return neighbours
