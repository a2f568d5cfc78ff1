"""Camera paths: generated from the source cameras, or read from files of nerfstudio's viewer.

In such a JSON file ``camera_path`` lists frames, each with ``camera_to_world`` (16 numbers in
row-major order, OpenGL axes: x right, y up, z backwards) and ``fov`` (vertical, degrees);
``render_height`` and ``render_width`` are the frame size. The poses are in the coordinates of the
nerfstudio training run. The ``dataparser_transforms.json`` of that run, if it lies beside the file,
is used to map them back to the coordinates of the data set.
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
from datasets.formats.checks import is_rigid, rigid_poses
from models.scenes.renderable_scene import RenderableScene
from utils.camera_rig import focus_distance, nearest_sources, source_distances
from utils.cameras import Cameras, invert_rigid
from utils.errors import UserError
from utils.files import read_json
from utils.trajectories import ellipse, orbit, path_intrinsics, smooth_path, spiral

_CLOSED_PATHS = {"spiral": spiral, "orbit": orbit, "ellipse": ellipse}
_DTU_VIEWS = 3
"""Source views that a dtu path passes through, unless they were chosen."""
TRANSFORMS_NAME = "dataparser_transforms.json"
_MAX_FRAMES, _MAX_PIXELS = 100_000, 1 << 25
OPENGL = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
"""Factors on the columns of a pose that convert between OpenCV and OpenGL axes."""


@dataclass(frozen=True)
class CameraPath:
    """Cameras of the frames of a video."""

    cameras: Cameras
    """One batch axis."""
    size: tuple[int, int]
    """Height and width of the frames, in pixels."""
    closed: bool
    """Whether the first frame follows the last."""


def make_path(choice: CameraPathChoice, scene: RenderableScene, chosen: bool = False) -> CameraPath:
    """Generate or read a camera path.

    With ``chosen``, a dtu path passes through all source views instead of the middle three.
    """
    size = frame_size(choice)
    if choice.path_file is not None:
        return read_camera_path(Path(choice.path_file), size, scene.image_size, scene.origin)
    size = size or scene.image_size
    c2w = _poses(choice, scene, chosen)
    intrinsics = path_intrinsics(scene.cameras.intrinsics, scene.image_size, size, choice.zoom)
    cameras = Cameras(intrinsics.expand(len(c2w), 3, 3), c2w)
    return CameraPath(cameras, size, closed=choice.path != "interpolate")


def frame_size(choice: CameraPathChoice | GeometryConfig) -> tuple[int, int] | None:
    """Return the chosen height and width, or None."""
    return (choice.size[0], choice.size[1]) if choice.size else None


def _poses(
    choice: CameraPathChoice, scene: RenderableScene, chosen: bool
) -> Float[Tensor, "frame 4 4"]:
    sources, near_far = scene.cameras, scene.near_far
    if choice.path in _CLOSED_PATHS:
        return _CLOSED_PATHS[choice.path](sources, near_far, choice.n_frames, choice.reach)
    # MVSNeRF (Chen et al., ICCV 2021) shows DTU on a loop through three neighbouring views.
    closed = choice.path == "dtu"
    if closed and not chosen:
        middle = source_distances(sources, sources, near_far).sum(0).argmin().item()
        (neighbours,) = nearest_sources(sources[[middle]], sources, near_far, _DTU_VIEWS)
        sources = sources[list(neighbours)]
    return smooth_path(sources.c2w, choice.n_frames, focus_distance(sources, near_far), closed)


def read_camera_path(
    path: Path,
    size: tuple[int, int] | None,
    default_size: tuple[int, int],
    origin: Float64[Tensor, " 3"] | None = None,
) -> CameraPath:
    """Read a camera path.

    The frame size is ``size``, else the file's, else ``default_size``. ``origin`` is the origin of
    the scene's cameras in the coordinates of its files.
    """
    content = read_json(path, "camera path of nerfstudio's viewer")
    frames = content.get("camera_path")
    if not isinstance(frames, list) or not 0 < len(frames) <= _MAX_FRAMES:
        raise UserError(f"{path}: camera_path must list frames, 1 to {_MAX_FRAMES} of them.")
    names = [f"{path}, frame {number}" for number in range(len(frames))]
    rows = [_read_frame(frame, name) for frame, name in zip(frames, names, strict=True)]
    c2w = rigid_poses(torch.stack([matrix for matrix, _ in rows]), names)
    transforms_path = path.with_name(TRANSFORMS_NAME)
    if transforms_path.is_file():
        c2w = _undo_transform(c2w, transforms_path)
    if origin is not None:
        c2w[:, :3, 3] -= origin
    if size is None:
        size = _size_in_file(content, path) or default_size
    half_fov = torch.tensor([math.radians(fov) / 2 for _, fov in rows])
    intrinsics = torch.eye(3).repeat(len(rows), 1, 1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = 0.5 * size[0] / torch.tan(half_fov)
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = size[1] / 2, size[0] / 2
    cameras = Cameras(intrinsics, (c2w * OPENGL).float())
    if not (cameras.c2w.isfinite().all() and cameras.intrinsics.isfinite().all()):
        raise UserError(f"{path}: positions or focal lengths are too large; export it again.")
    return CameraPath(cameras, size, closed=False)


def _size_in_file(content: Mapping[str, object], path: Path) -> tuple[int, int] | None:
    """Return the frame height and width that the file specifies, or None."""
    height, width = (content.get(f"render_{side}") for side in ("height", "width"))
    if not isinstance(height, int) or not isinstance(width, int) or min(height, width) <= 0:
        return None
    if height * width > _MAX_PIXELS:
        raise UserError(
            f"{path}: render_height={height} and render_width={width} exceed {_MAX_PIXELS} pixels "
            "per frame; choose a smaller frame with --size HEIGHT WIDTH."
        )
    return height, width


def _read_frame(frame: object, source: str) -> tuple[Float[Tensor, "3 4"], float]:
    if not isinstance(frame, dict):
        raise UserError(f"{source}: is not an object with camera_to_world and fov.")
    matrix = _read_matrix(frame.get("camera_to_world"), (4, 4), f"{source}: camera_to_world")
    fov = frame.get("fov", 50.0)
    if not isinstance(fov, (int, float)) or not 0 < fov < 180:
        raise UserError(
            f"{source}: fov is {reprlib.repr(fov)}; it must lie between 0 and 180 degrees."
        )
    return matrix[:3], float(fov)


def _read_matrix(
    values: object, shape: tuple[int, int], source: str
) -> Float[Tensor, "row column"]:
    try:
        matrix = torch.tensor(values, dtype=torch.float64).reshape(shape)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UserError(f"{source} must hold {shape[0]} x {shape[1]} numbers.") from error
    if not matrix.isfinite().all():
        raise UserError(f"{source} contains values that are not finite.")
    return matrix


def _undo_transform(c2w: Float[Tensor, "frame 4 4"], path: Path) -> Float[Tensor, "frame 4 4"]:
    """Invert nerfstudio's map ``scale * (transform @ world)``, which is stored in a file."""
    content = read_json(path, "transform of a nerfstudio run")
    transform = _read_matrix(content.get("transform"), (3, 4), f"{path}: transform")
    scale = content.get("scale")
    if not isinstance(scale, (int, float)) or not 1e-9 < scale < 1e9:
        raise UserError(
            f"{path}: scale is {reprlib.repr(scale)}; it must be a positive number, about 1."
        )
    unscaled = c2w.clone()
    unscaled[:, :3, 3] /= scale
    if not is_rigid(transform):
        raise UserError(
            f"{path}: transform is not a rotation with a translation; copy the file from "
            "nerfstudio again."
        )
    matrix = torch.cat([transform, torch.tensor([[0.0, 0, 0, 1]], dtype=transform.dtype)])
    return invert_rigid(matrix) @ unscaled
