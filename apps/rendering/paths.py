"""Camera paths through a scene, as the settings choose them, also from nerfstudio's files.

In such a JSON file ``camera_path`` lists frames, each with ``camera_to_world`` (16 numbers, row by
row, OpenGL axes: x right, y up, z backwards) and ``fov`` (vertical, degrees); ``render_height`` and
``render_width`` say how large they are. nerfstudio writes it in the coordinates of its own training
run; the ``dataparser_transforms.json`` of that run, put beside it, brings them back to the scene's.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from apps.rendering.config import CameraPathChoice, GeometryConfig
from datasets.formats.checks import rigid_poses
from models.scenes.renderable_scene import RenderableScene
from utils.camera_rig import focus_distance, nearest_sources, source_distances
from utils.cameras import Cameras
from utils.errors import UserError
from utils.files import read_json
from utils.trajectories import ellipse, orbit, path_intrinsics, smooth_path, spiral

_AROUND = {"spiral": spiral, "orbit": orbit, "ellipse": ellipse}
_LOOPED_VIEWS = 3
TRANSFORMS_NAME = "dataparser_transforms.json"
_MAX_FRAMES, _MAX_PIXELS = 100_000, 1 << 25
OPENGL = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
"""OpenGL's y and z axes point the other way."""


@dataclass(frozen=True)
class CameraPath:
    """Cameras of the frames of a video."""

    cameras: Cameras
    """One batch axis."""
    size: tuple[int, int]
    """Height and width of the frames."""
    closed: bool
    """The first frame follows the last."""


def make_path(choice: CameraPathChoice, scene: RenderableScene, chosen: bool = False) -> CameraPath:
    """Lay a path through a scene; a dtu path passes through all sources if they were ``chosen``."""
    size = frame_size(choice)
    if choice.path_file is not None:
        return read_camera_path(Path(choice.path_file), size, scene.image_size, scene.origin)
    size = size or scene.image_size
    c2w = _poses(choice, scene, chosen)
    intrinsics = path_intrinsics(scene.cameras.intrinsics, scene.image_size, size, choice.zoom)
    cameras = Cameras(intrinsics.expand(len(c2w), 3, 3), c2w)
    return CameraPath(cameras, size, closed=choice.path != "interpolate")


def frame_size(choice: CameraPathChoice | GeometryConfig) -> tuple[int, int] | None:
    """Return the chosen height and width, if they were chosen."""
    return (choice.size[0], choice.size[1]) if choice.size else None


def _poses(
    choice: CameraPathChoice, scene: RenderableScene, chosen: bool
) -> Float[Tensor, "frame 4 4"]:
    sources, near_far = scene.cameras, scene.near_far
    if choice.path in _AROUND:
        return _AROUND[choice.path](sources, near_far, choice.n_frames, choice.reach)
    # As MVSNeRF (Chen et al., ICCV 2021) shows DTU: a loop through three neighbouring views.
    closed = choice.path == "dtu"
    if closed and not chosen:
        middle = source_distances(sources, sources, near_far).sum(0).argmin().item()
        (looped,) = nearest_sources(sources[[middle]], sources, near_far, _LOOPED_VIEWS)
        sources = sources[list(looped)]
    return smooth_path(sources.c2w, choice.n_frames, focus_distance(sources, near_far), closed)


def read_camera_path(
    path: Path,
    size: tuple[int, int] | None,
    usual_size: tuple[int, int],
    origin: Float64[Tensor, " 3"] | None = None,
) -> CameraPath:
    """Read a camera path; frames without ``size`` have the file's size, or else the usual.

    ``origin`` is that of the scene's cameras in the coordinates of its files.
    """
    content = read_json(path, "camera path of nerfstudio's viewer")
    frames = content.get("camera_path")
    if not isinstance(frames, list) or not 0 < len(frames) <= _MAX_FRAMES:
        raise UserError(f"{path}: camera_path must list frames, 1 to {_MAX_FRAMES} of them.")
    names = [f"{path}, frame {number}" for number in range(len(frames))]
    rows = [_read_frame(frame, name) for frame, name in zip(frames, names, strict=True)]
    c2w = rigid_poses(torch.stack([matrix for matrix, _ in rows]), names)
    beside = path.with_name(TRANSFORMS_NAME)
    if beside.is_file():
        c2w = _undo_transform(c2w, beside)
    if origin is not None:
        c2w[:, :3, 3] -= origin
    if size is None:
        size = _stated_size(content, path) or usual_size
    half_fov = torch.tensor([math.radians(fov) / 2 for _, fov in rows])
    intrinsics = torch.eye(3).repeat(len(rows), 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = 0.5 * size[0] / torch.tan(half_fov)
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = size[1] / 2, size[0] / 2
    return CameraPath(Cameras(intrinsics, (c2w * OPENGL).float()), size, closed=False)


def _stated_size(content: Mapping[str, object], path: Path) -> tuple[int, int] | None:
    """Return the height and width that a file states for its frames, if it does."""
    height, width = (content.get(f"render_{side}") for side in ("height", "width"))
    if not isinstance(height, int) or not isinstance(width, int) or min(height, width) <= 0:
        return None
    if height * width > _MAX_PIXELS:
        raise UserError(
            f"{path}: render_height={height} and render_width={width} are frames of more than "
            f"{_MAX_PIXELS} pixels; choose others with --size HEIGHT WIDTH."
        )
    return height, width


def _read_frame(frame: object, where: str) -> tuple[Float[Tensor, "3 4"], float]:
    if not isinstance(frame, dict):
        raise UserError(f"{where}: is not an object with camera_to_world and fov.")
    matrix = _matrix(frame.get("camera_to_world"), (4, 4), f"{where}: camera_to_world")
    fov = frame.get("fov", 50.0)
    if not isinstance(fov, (int, float)) or not 0 < fov < 180:
        raise UserError(
            f"{where}: fov is {reprlib.repr(fov)}; it must lie between 0 and 180 degrees."
        )
    return matrix[:3], float(fov)


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
    content = read_json(path, "transform of a nerfstudio run")
    transform = _matrix(content.get("transform"), (3, 4), f"{path}: transform")
    scale = content.get("scale")
    if not isinstance(scale, (int, float)) or not 1e-9 < scale < 1e9:
        raise UserError(
            f"{path}: scale is {reprlib.repr(scale)}; it must be a positive number, about 1."
        )
    unscaled = c2w.clone()
    unscaled[:, :3, 3] /= scale
    whole = torch.cat([transform, torch.tensor([[0.0, 0, 0, 1]], dtype=transform.dtype)])
    inverse, failed = torch.linalg.inv_ex(whole)
    if failed or torch.linalg.det(whole[:3, :3]).abs() < 1e-6:
        raise UserError(f"{path}: transform cannot be undone.")
    return inverse @ unscaled
