"""Camera paths recorded in the viewer: views in, a file and a video out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from apps.rendering.frames import plan_frames
from apps.rendering.paths import OPENGL, CameraPath
from apps.rendering.progressive import Viewpoint
from models.scenes.renderable_scene import RenderableScene
from utils.camera_rig import focus_distance
from utils.cameras import Cameras
from utils.trajectories import smooth_path
from utils.video import write_video

FRAMES_PER_SECOND = 24
_SECONDS_BETWEEN = 2


def recorded_path(
    views: Sequence[Viewpoint], scene: RenderableScene, size: tuple[int, int]
) -> CameraPath:
    """Lay a smooth path through recorded views; its field of view is that of the first."""
    count = max(1, (len(views) - 1) * _SECONDS_BETWEEN * FRAMES_PER_SECOND)
    distance = focus_distance(scene.cameras, scene.near_far)
    c2w = smooth_path(torch.stack([view.c2w.float() for view in views]), count, distance)
    focal = 0.5 * size[0] / math.tan(0.5 * views[0].fov)
    intrinsics = torch.tensor([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1.0]])
    return CameraPath(Cameras(intrinsics.expand(count, 3, 3), c2w), size, closed=False)


def path_content(path: CameraPath, origin: Float64[Tensor, " 3"]) -> dict[str, Any]:
    """Return a path as ``read_camera_path`` reads it: a file of nerfstudio's viewer.

    ``origin`` is the scene's: the file has the coordinates of the data set.
    """
    height, width = path.size
    c2w = path.cameras.c2w.double() * OPENGL
    c2w[:, :3, 3] += origin
    focals = path.cameras.intrinsics[:, 1, 1].tolist()
    matrices = c2w.flatten(1).tolist()
    frames = [
        {"camera_to_world": matrix, "fov": math.degrees(2 * math.atan(0.5 * height / focal))}
        for matrix, focal in zip(matrices, focals, strict=True)
    ]
    return {
        "render_height": height,
        "render_width": width,
        "fps": FRAMES_PER_SECOND,
        "camera_path": frames,
    }


def film(scene: RenderableScene, path: CameraPath, out: Path) -> Iterator[tuple[int, int]]:
    """Render a path to a video; yield after each frame how many of how many are done."""
    job = plan_frames(scene, path)
    frames = []
    for number in range(len(job)):
        frames.append(job.render(number).rgb)
        yield number + 1, len(job)
    write_video(out, frames, float(FRAMES_PER_SECOND))
