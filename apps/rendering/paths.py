"""Camera paths through a scene, as the settings choose them."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from apps.rendering.config import CameraPathChoice
from apps.rendering.scene import RenderableScene
from utils.camera_path_file import read_camera_path
from utils.camera_rig import nearest_sources, source_distances
from utils.cameras import Cameras
from utils.trajectories import ellipse, interpolate, orbit, path_intrinsics, spiral

_AROUND = {"spiral": spiral, "orbit": orbit, "ellipse": ellipse}
_LOOPED_VIEWS = 3


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
    """Lay a path through a scene.

    Args:
        choice: Which path.
        scene: Its source cameras define the path.
        chosen: The user chose the source views, so that a dtu path passes through all of them.
    """
    size = frame_size(choice)
    if choice.path_file is not None:
        file = read_camera_path(choice.path_file)
        size = size or file.size or scene.image_size
        return CameraPath(file.cameras(size), size, closed=False)
    size = size or scene.image_size
    c2w = _poses(choice, scene, chosen)
    intrinsics = path_intrinsics(scene.cameras.intrinsics, scene.image_size, size, choice.zoom)
    cameras = Cameras(intrinsics.expand(len(c2w), 3, 3), c2w)
    return CameraPath(cameras, size, closed=choice.path != "interpolate")


def frame_size(choice: CameraPathChoice) -> tuple[int, int] | None:
    """Return the chosen height and width, if they were chosen."""
    return (choice.size[0], choice.size[1]) if choice.size else None


def _poses(
    choice: CameraPathChoice, scene: RenderableScene, chosen: bool
) -> Float[Tensor, "frame 4 4"]:
    sources, near_far = scene.cameras, scene.near_far
    if choice.path in _AROUND:
        return _AROUND[choice.path](sources, near_far, choice.n_frames, choice.reach)
    if choice.path == "interpolate":
        return interpolate(sources, near_far, choice.n_frames)
    # As MVSNeRF (Chen et al., ICCV 2021) shows DTU: a loop through three neighbouring views.
    if not chosen:
        middle = source_distances(sources, sources, near_far).sum(0).argmin().item()
        (looped,) = nearest_sources(sources[[middle]], sources, near_far, _LOOPED_VIEWS)
        sources = sources[list(looped)]
    return interpolate(sources, near_far, choice.n_frames, closed=True)
