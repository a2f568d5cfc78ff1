"""Recording of camera paths in the viewer, and their rendering to video."""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import viser
from jaxtyping import Float64
from torch import Tensor

from apps.rendering.frames import plan_frames
from apps.rendering.paths import OPENGL, CameraPath
from apps.rendering.progressive import FAILURES, ProgressiveRenderer, Viewpoint
from models.scenes.renderable_scene import RenderableScene
from utils.camera_rig import focus_distance
from utils.cameras import Cameras
from utils.files import shell_command
from utils.trajectories import smooth_path
from utils.video import write_video

logger = logging.getLogger(__name__)

_FPS = 24
_SECONDS_BETWEEN_VIEWS = 2
_MAX_VIEWS = 200
"""Recorded views per client."""
_MAX_VIDEOS = 4
"""Videos that are queued or being rendered."""


class PathRecorder:
    """Controls that record a camera path per client and render it to video."""

    def __init__(self, server: viser.ViserServer, renderer: ProgressiveRenderer) -> None:
        """Add the buttons to the viewer."""
        self.renderer = renderer
        self.views: dict[int, Viewpoint] = {}
        """Current viewpoint by client id."""
        self._paths: dict[int, list[Viewpoint]] = {}
        self._videos: deque[Iterator[None]] = deque()
        with server.gui.add_folder("camera path", expand_by_default=False):
            server.gui.add_button("add this view").on_click(self._add)
            server.gui.add_button("clear path").on_click(self._clear)
            server.gui.add_button("save path").on_click(self._save)
            server.gui.add_button("render video").on_click(self._request_video)

    def step(self) -> bool:
        """Render one frame of the first queued video; return whether there was one.

        A video that fails, for example because its client has disconnected, is dropped.
        """
        if not self._videos:
            return False
        try:
            next(self._videos[0])
        except StopIteration:
            self._videos.popleft()
        except FAILURES:
            logger.exception("a video could not be rendered")
            self._videos.popleft()
        return True

    def remove_client(self, client_id: int) -> None:
        """Discard the path of a client."""
        self.views.pop(client_id, None)
        self._paths.pop(client_id, None)

    def _add(self, event: viser.GuiEvent[Any]) -> None:
        client = event.client
        if client is None or client.client_id not in self.views:
            return
        path = self._paths.setdefault(client.client_id, [])
        if len(path) < _MAX_VIEWS:
            path.append(self.views[client.client_id])
        _notify(client, f"{len(path)} of at most {_MAX_VIEWS} views on the path")

    def _clear(self, event: viser.GuiEvent[Any]) -> None:
        if event.client is not None:
            self._paths.pop(event.client.client_id, None)
            _notify(event.client, "no view on the path")

    def _save(self, event: viser.GuiEvent[Any]) -> None:
        """Send the client a file of its path for ``render_video.py``."""
        if event.client is not None and (path := self._path_of(event.client)):
            content = json.dumps(path_content(path, self.renderer.scene.origin), indent=1).encode()
            event.client.send_file_download("camera_path.json", content)
            flags = "--path", "file", "--path_file", "camera_path.json"
            command = shell_command("render_video.py", *flags)
            _notify(event.client, command)

    def _request_video(self, event: viser.GuiEvent[Any]) -> None:
        if event.client is None or not (path := self._path_of(event.client)):
            return
        if len(self._videos) < _MAX_VIDEOS:
            self._videos.append(self._render_video(event.client, path))
        else:
            _notify(event.client, "other videos are being rendered: try again later")

    def _path_of(self, client: viser.ClientHandle) -> CameraPath | None:
        views = self._paths.get(client.client_id, [])
        if len(views) < 2:
            _notify(client, "first add two or more views to the path")
            return None
        return recorded_path(views, self.renderer.scene, self.renderer.height)

    def _render_video(self, client: viser.ClientHandle, path: CameraPath) -> Iterator[None]:
        """Render one frame per step, then send the client the video."""
        scene = self.renderer.scene
        notice = client.add_notification("video", "", loading=True, with_close_button=False)
        job, frames = plan_frames(scene, path), []
        for number in range(len(job)):
            frames.append(job.render(number).rgb)
            notice.body = f"{number + 1} of {len(job)} frames"
            yield
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "path.mp4"
            write_video(out, frames, float(_FPS))
            client.send_file_download(f"{scene.name}.mp4", out.read_bytes())
        notice.remove()


def recorded_path(views: Sequence[Viewpoint], scene: RenderableScene, height: int) -> CameraPath:
    """Interpolate recorded views smoothly, with the field of view and aspect of the first."""
    count = max(1, (len(views) - 1) * _SECONDS_BETWEEN_VIEWS * _FPS)
    distance = focus_distance(scene.cameras, scene.near_far)
    c2w = smooth_path(torch.stack([view.c2w.float() for view in views]), count, distance)
    camera, size = views[0].at(height)
    return CameraPath(Cameras(camera.intrinsics.expand(count, 3, 3), c2w), size, closed=False)


def path_content(path: CameraPath, origin: Float64[Tensor, " 3"]) -> dict[str, Any]:
    """Return a path in the JSON format of nerfstudio's viewer, which ``read_camera_path`` reads.

    ``origin`` is the scene's origin in the coordinates of the data set.
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
    return {"render_height": height, "render_width": width, "fps": _FPS, "camera_path": frames}


def _notify(client: viser.ClientHandle, text: str) -> None:
    client.add_notification("camera path", text, auto_close_seconds=8.0)
