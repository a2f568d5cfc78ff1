"""The viewer's controls that record a camera path and render it to a video."""

from __future__ import annotations

import json
import logging
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import viser

from apps.rendering.paths import CameraPath
from apps.rendering.progressive import FAILURES, ProgressiveRenderer, Viewpoint
from apps.rendering.recording import film, path_content, recorded_path

logger = logging.getLogger(__name__)

_MOST_VIEWS, _MOST_FILMS = 200, 4
"""Of a path, and of films that wait."""


class Recorder:
    """Every client's path, and the films that are being rendered."""

    def __init__(self, server: viser.ViserServer, renderer: ProgressiveRenderer) -> None:
        """Add the buttons."""
        self.renderer = renderer
        self.views: dict[int, Viewpoint] = {}
        """What each client sees, by its number."""
        self._paths: dict[int, list[Viewpoint]] = {}
        self._films: deque[Iterator[None]] = deque()
        with server.gui.add_folder("camera path", expand_by_default=False):
            server.gui.add_button("add this view").on_click(self._add)
            server.gui.add_button("forget all").on_click(self._clear)
            server.gui.add_button("save path").on_click(self._save)
            server.gui.add_button("render video").on_click(self._order)

    def step(self) -> bool:
        """Render a frame of the first film that waits; tell if there was one.

        A film that fails, for example because its client has gone, is dropped.
        """
        if not self._films:
            return False
        try:
            ended = next(self._films[0], self) is self
        except FAILURES:
            logger.exception("a video could not be made")
            ended = True
        if ended:
            self._films.popleft()
        return True

    def forget(self, client_id: int) -> None:
        """Drop what a client has recorded."""
        self.views.pop(client_id, None)
        self._paths.pop(client_id, None)

    def _add(self, event: viser.GuiEvent[Any]) -> None:
        client = event.client
        if client is None or client.client_id not in self.views:
            return
        path = self._paths.setdefault(client.client_id, [])
        if len(path) < _MOST_VIEWS:
            path.append(self.views[client.client_id])
        _tell(client, f"{len(path)} of at most {_MOST_VIEWS} views on the path")

    def _clear(self, event: viser.GuiEvent[Any]) -> None:
        if event.client is not None:
            self._paths.pop(event.client.client_id, None)
            _tell(event.client, "no view on the path")

    def _save(self, event: viser.GuiEvent[Any]) -> None:
        """Send the client its path, as ``render_video.py`` takes it."""
        if event.client is not None and (path := self._path_of(event.client)):
            content = json.dumps(path_content(path, self.renderer.scene.origin), indent=1).encode()
            event.client.send_file_download("camera_path.json", content)
            _tell(event.client, "python render_video.py --path file --path_file camera_path.json")

    def _order(self, event: viser.GuiEvent[Any]) -> None:
        if event.client is None or not (path := self._path_of(event.client)):
            return
        if len(self._films) < _MOST_FILMS:
            self._films.append(self._film(event.client, path))
        else:
            _tell(event.client, "other videos are being rendered: try again later")

    def _path_of(self, client: viser.ClientHandle) -> CameraPath | None:
        views = self._paths.get(client.client_id, [])
        if len(views) < 2:
            _tell(client, "first add two views or more to the path")
            return None
        size = views[0].at(self.renderer.height)[1]
        return recorded_path(views, self.renderer.scene, size)

    def _film(self, client: viser.ClientHandle, path: CameraPath) -> Iterator[None]:
        """Render a path, a frame at a time, and send the client the video."""
        scene = self.renderer.scene
        notice = client.add_notification("video", "", loading=True, with_close_button=False)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "path.mp4"
            for done, count in film(scene, path, out):
                notice.body = f"{done} of {count} frames"
                yield
            client.send_file_download(f"{scene.name}.mp4", out.read_bytes())
        notice.remove()


def _tell(client: viser.ClientHandle, text: str) -> None:
    client.add_notification("camera path", text, auto_close_seconds=8.0)
