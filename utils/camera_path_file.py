"""Camera paths as JSON files, in the format of nerfstudio's viewer.

``camera_path`` lists frames, each with ``camera_to_world`` (16 numbers, row by row, OpenGL axes: x
right, y up, z backwards) and ``fov`` (vertical, degrees). ``render_height``, ``render_width`` and
``fps`` say how to render them. nerfstudio writes such files in the coordinates of its own training
run; the ``dataparser_transforms.json`` of that run, put beside the file, brings them back to the
scene's.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from utils.cameras import Cameras
from utils.errors import UserError
from utils.files import write_text

TRANSFORMS_NAME = "dataparser_transforms.json"
_MAX_BYTES = 1 << 26
_MAX_FRAMES = 100_000
_RIGID = 1e-2
"""How far a rotation of a file may be from orthonormal."""
_OPENGL = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
"""OpenGL's y and z axes point the other way."""


@dataclass(frozen=True)
class CameraPathFile:
    """A camera path as a file has it."""

    c2w: Float[Tensor, "frame 4 4"]
    fov: Float[Tensor, " frame"]
    """Vertical field of view, radians."""
    size: tuple[int, int] | None
    """Height and width, if the file says."""

    def cameras(self, size: tuple[int, int]) -> Cameras:
        """Return pinhole cameras for frames of a height and width."""
        focal = 0.5 * size[0] / torch.tan(0.5 * self.fov)
        intrinsics = torch.eye(3).repeat(len(self.fov), 1, 1)
        intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
        intrinsics[:, 0, 2], intrinsics[:, 1, 2] = size[1] / 2, size[0] / 2
        return Cameras(intrinsics, self.c2w)


def read_camera_path(path: str | Path) -> CameraPathFile:
    """Read a camera path."""
    path = Path(path)
    content = _read_json(path, "a camera path of nerfstudio's viewer")
    frames = content.get("camera_path")
    if not isinstance(frames, list) or not 0 < len(frames) <= _MAX_FRAMES:
        raise UserError(f"{path}: camera_path must list frames, 1 to {_MAX_FRAMES} of them.")
    rows = [_read_frame(frame, f"{path}, frame {number}") for number, frame in enumerate(frames)]
    c2w = torch.stack([matrix for matrix, _ in rows])
    beside = path.with_name(TRANSFORMS_NAME)
    if beside.is_file():
        c2w = _undo_transform(c2w, beside)
    size = [content.get(f"render_{side}") for side in ("height", "width")]
    known = all(isinstance(side, int) and 0 < side <= 16384 for side in size)
    return CameraPathFile(
        c2w=(c2w * _OPENGL).float(),
        fov=torch.tensor([math.radians(fov) for _, fov in rows]),
        size=(size[0], size[1]) if known else None,  # pyright: ignore[reportArgumentType]
    )


def write_camera_path(
    path: str | Path, cameras: Cameras, size: tuple[int, int], fps: float
) -> None:
    """Write a camera path, frames of (height, width), in the scene's own coordinates."""
    c2w = cameras.c2w.double() * _OPENGL
    fov = 2 * torch.atan(0.5 * size[0] / cameras.intrinsics[:, 1, 1].double())
    frames = [
        {
            "camera_to_world": matrix.flatten().tolist(),
            "fov": math.degrees(angle),
            "aspect": size[1] / size[0],
        }
        for matrix, angle in zip(c2w, fov.tolist(), strict=True)
    ]
    content = {
        "camera_type": "perspective",
        "render_height": size[0],
        "render_width": size[1],
        "fps": fps,
        "seconds": len(c2w) / fps,
        "camera_path": frames,
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def _read_json(path: Path, wanted: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: larger than any camera path ({_MAX_BYTES} bytes at most).")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; expected {wanted}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); expected {wanted}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no JSON object; expected {wanted}.")
    return content


def _read_frame(frame: object, where: str) -> tuple[Float[Tensor, "4 4"], float]:
    if not isinstance(frame, dict):
        raise UserError(f"{where}: is not an object with camera_to_world and fov.")
    matrix = _matrix(frame.get("camera_to_world"), (4, 4), f"{where}: camera_to_world")
    rotation = matrix[:3, :3]
    error = (rotation @ rotation.T - torch.eye(3, dtype=matrix.dtype)).abs().max().item()
    if error > _RIGID or torch.linalg.det(rotation) < 0:
        raise UserError(f"{where}: camera_to_world is no rotation and translation.")
    fov = frame.get("fov", 50.0)
    if not isinstance(fov, (int, float)) or not 0 < fov < 180:
        raise UserError(f"{where}: fov is {fov!r}; it must lie between 0 and 180 degrees.")
    return matrix, float(fov)


def _matrix(values: object, shape: tuple[int, int], where: str) -> Float[Tensor, "row column"]:
    try:
        matrix = torch.tensor(values, dtype=torch.float64).reshape(shape)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UserError(f"{where} must hold {shape[0]} x {shape[1]} numbers.") from error
    if not matrix.isfinite().all():
        raise UserError(f"{where} holds values that are not finite.")
    return matrix


def _undo_transform(c2w: Float[Tensor, "frame 4 4"], path: Path) -> Float[Tensor, "frame 4 4"]:
    """Go back from nerfstudio's coordinates, ``scale * (transform @ world)``."""
    content = _read_json(path, "the dataparser_transforms.json of a nerfstudio run")
    transform = _matrix(content.get("transform"), (3, 4), f"{path}: transform")
    scale = content.get("scale")
    if not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
        raise UserError(f"{path}: scale is {scale!r}; it must be a positive number.")
    unscaled = c2w.clone()
    unscaled[:, :3, 3] /= scale
    whole = torch.cat([transform, torch.tensor([[0.0, 0, 0, 1]], dtype=transform.dtype)])
    if torch.linalg.det(whole[:3, :3]).abs() < 1e-6:
        raise UserError(f"{path}: transform cannot be undone.")
    return torch.linalg.inv(whole) @ unscaled
