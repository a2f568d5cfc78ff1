"""Camera files of MVSNet's DTU layout, and their way into the convention of ``utils.cameras``.

A ``*_cam.txt`` holds ``extrinsic`` (world-to-camera 4x4, millimetres), ``intrinsic`` (3x3) and a
last line ``depth_min depth_interval [depth_num [depth_max]]`` (Yao et al., MVSNet, ECCV 2018).
The farthest depth is ``depth_max`` if it is there, else ``depth_min + depth_num * depth_interval``
with 192 planes unless the file says otherwise: 425 + 192 * 2.5 = 905 mm for DTU.

The calibration has pixel centres at whole numbers of the 1600x1200 photograph. The files that
circulate for 640x512 images (halved, then cropped by 80 columns and 44 rows) hold a quarter of
that image's size, ``(K / 2 - crop) / 4`` without any care for half pixels. Both facts are undone
here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from datasets.formats.images import Size
from utils.cameras import crop_intrinsics, resize_intrinsics
from utils.errors import UserError

PHOTO_SIZE: Size = (1200, 1600)
"""The photographs of the DTU robot, as height and width."""
CROPPED_SIZE: Size = (512, 640)
"""What MVSNet made of them: halved, then cropped about the centre."""
CROP_TOP, CROP_LEFT = 44, 80

_DEFAULT_PLANES = 192
_MAX_BYTES = 1 << 16
_MAX_CENTER_DEVIATION = 0.25
"""How far, in image sizes, a principal point may lie from the centre of its image."""


@dataclass(frozen=True)
class CameraFile:
    """One camera file, checked, but still in the file's own convention."""

    path: Path
    intrinsics: Float64[Tensor, "3 3"]
    w2c: Float64[Tensor, "4 4"]
    """Millimetres."""
    near: float
    far: float


def read_camera_file(path: Path) -> CameraFile:
    """Parse and check a camera file.

    Raises:
        UserError: Names the file, the line and what stands there.
    """
    lines = _numbered_lines(path)
    end = (lines[-1][0] + 1 if lines else 1, "")
    lines += [end] * (10 - len(lines))
    _expect(lines[0][1] == "extrinsic", path, lines[0], "expected the word 'extrinsic'")
    w2c = _read_matrix(path, lines[1:5], 4)
    _expect(lines[5][1] == "intrinsic", path, lines[5], "expected the word 'intrinsic'")
    intrinsics = _read_matrix(path, lines[6:9], 3)
    depth_range = _read_numbers(path, lines[9], (2, 3, 4))
    _expect(len(lines) == 10, path, lines[-1], "nothing may follow the depth range")
    _check_rigid(w2c, path, lines[1])
    _check_intrinsics(intrinsics, path, lines[6])
    near, far = _near_far(depth_range)
    _expect(0 < near < far, path, lines[9], "expected 0 < depth_min < depth_max")
    return CameraFile(path, intrinsics, w2c, near, far)


def image_intrinsics(camera: CameraFile, size: Size) -> Float64[Tensor, "3 3"]:
    """Bring intrinsics to an image of ``size``, in the convention of ``utils.cameras``.

    Which size the file speaks of is told by its principal point: a quarter of the image, the image
    itself or, for 640x512 images, the photograph that they were cut from.

    Raises:
        UserError: The principal point is near the centre of none of these.
    """
    height, width = size
    sizes = {"quarter": (height / 4, width / 4), "image": (height, width)}
    if size == CROPPED_SIZE:
        sizes["photo"] = PHOTO_SIZE
    column, row = camera.intrinsics[0, 2].item(), camera.intrinsics[1, 2].item()
    deviations = {
        kind: max(abs(column / wide - 0.5), abs(row / high - 0.5))
        for kind, (high, wide) in sizes.items()
    }
    kind = min(deviations, key=lambda name: deviations[name])
    if deviations[kind] > _MAX_CENTER_DEVIATION:
        tried = ", ".join(f"{wide:g}x{high:g}" for high, wide in sizes.values())
        raise UserError(
            f"{camera.path}: the principal point ({column:g}, {row:g}) is not near the centre of "
            f"an image of {tried}, the sizes that go with {width}x{height} images. Do cameras and "
            "images belong together?"
        )
    if kind == "quarter":
        return crop_intrinsics(resize_intrinsics(camera.intrinsics, 4.0, 4.0), -0.25, -0.25)
    centered = crop_intrinsics(camera.intrinsics, -0.5, -0.5)
    if kind == "image":
        return centered
    return crop_intrinsics(resize_intrinsics(centered, 0.5, 0.5), float(CROP_LEFT), float(CROP_TOP))


def _near_far(depth_range: Sequence[float]) -> tuple[float, float]:
    if len(depth_range) == 4:
        return depth_range[0], depth_range[3]
    planes = depth_range[2] if len(depth_range) == 3 else _DEFAULT_PLANES
    return depth_range[0], depth_range[0] + planes * depth_range[1]


def _numbered_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, each with its number."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: larger than any camera file ({_MAX_BYTES} bytes at most).")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the camera file ({error}).") from error
    lines = enumerate((line.strip() for line in text.splitlines()), start=1)
    return [(number, line) for number, line in lines if line]


def _read_matrix(
    path: Path, lines: Sequence[tuple[int, str]], columns: int
) -> Float64[Tensor, "row column"]:
    rows = [_read_numbers(path, line, (columns,)) for line in lines]
    return torch.tensor(rows, dtype=torch.float64)


def _read_numbers(path: Path, line: tuple[int, str], counts: Sequence[int]) -> list[float]:
    expected = f"expected {' or '.join(map(str, counts))} finite numbers"
    try:
        numbers = [float(word) for word in line[1].split()]
    except ValueError:
        numbers = []
    finite = all(abs(number) < float("inf") for number in numbers)
    _expect(finite and len(numbers) in counts, path, line, expected)
    return numbers


def _check_rigid(w2c: Float64[Tensor, "4 4"], path: Path, line: tuple[int, str]) -> None:
    rotation = w2c[:3, :3]
    error = (rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max().item()
    bottom = torch.equal(w2c[3], w2c.new_tensor([0.0, 0.0, 0.0, 1.0]))
    rigid = error < 1e-3 and torch.linalg.det(rotation).item() > 0 and bottom
    _expect(rigid, path, line, "the extrinsic that begins here is not a rotation and translation")


def _check_intrinsics(
    intrinsics: Float64[Tensor, "3 3"], path: Path, line: tuple[int, str]
) -> None:
    bottom = torch.equal(intrinsics[2], intrinsics.new_tensor([0.0, 0.0, 1.0]))
    focal = intrinsics[0, 0].item() > 0 and intrinsics[1, 1].item() > 0
    pinhole = focal and bottom and intrinsics[1, 0].item() == 0
    _expect(pinhole, path, line, "the intrinsic that begins here is not that of a pinhole camera")


def _expect(holds: bool, path: Path, line: tuple[int, str], problem: str) -> None:
    if not holds:
        number, text = line
        raise UserError(f"{path}, line {number}: {problem}, found {text[:80]!r}.")
