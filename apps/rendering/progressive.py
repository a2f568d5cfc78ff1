"""Progressive rendering for dragged cameras: coarse at once, sharper while the camera stands."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from apps.rendering.scene import BeforeChunk, RenderableScene, RenderedView
from utils.cameras import Cameras

_MOVING_SECONDS = 0.15
"""How long a picture may take while the camera moves; it is as coarse as that demands."""
_SETTLED_SECONDS = 0.2
"""A camera that has not moved for so long stands still."""
_COARSEST = 24
_TYPICAL_ASPECT = 1.5

Show = Callable[[RenderedView], None]


@dataclass(frozen=True)
class Viewpoint:
    """A camera as a browser has it, whatever the size of the picture."""

    c2w: torch.Tensor
    """4x4."""
    fov: float
    """Vertical, radians."""
    aspect: float
    """Width over height."""

    def at(self, height: int) -> tuple[Cameras, tuple[int, int]]:
        """Return the pinhole camera for pictures of a height, and their size."""
        width = max(1, round(height * self.aspect))
        focal = 0.5 * height / math.tan(0.5 * self.fov)
        intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
        return Cameras(intrinsics, self.c2w.float()), (height, width)


@dataclass
class _Client:
    show: Show
    viewpoint: Viewpoint
    changed: float
    version: int = 0
    """Counts the changes that make the shown picture out of date."""
    shown_version: int = -1
    shown_height: int = 0
    shown_at: float = float("-inf")


class _OutOfDateError(Exception):
    pass


@dataclass
class ProgressiveRenderer:
    """Renders for all clients, one picture at a time, the one that waits longest first."""

    scene: RenderableScene
    height: int
    """Of the sharpest picture."""
    clock: Callable[[], float] = time.monotonic
    _clients: dict[int, _Client] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _speeds: deque[float] = field(default_factory=lambda: deque(maxlen=5))
    """Seconds per pixel of the last pictures."""

    def update_camera(self, client_id: int, viewpoint: Viewpoint, show: Show) -> None:
        """Update a client's camera; ``show`` takes its pictures."""
        with self._lock:
            now = self.clock()
            client = self._clients.setdefault(client_id, _Client(show, viewpoint, now))
            client.viewpoint, client.changed = viewpoint, now
            client.version += 1

    def remove_client(self, client_id: int) -> None:
        """Stop rendering for a client."""
        with self._lock:
            self._clients.pop(client_id, None)

    def set_scene(self, scene: RenderableScene) -> None:
        """Render another scene, or the same one with other settings, from now on."""
        with self._lock:
            self.scene = scene
            self.refresh()

    def refresh(self) -> None:
        """Render every client's picture anew."""
        with self._lock:
            for client in self._clients.values():
                client.version += 1

    def step(self) -> bool:
        """Render and show the next picture that a client waits for; tell if there was one.

        A sharp picture, which may take long, is given up when it is out of date.
        """
        with self._lock:
            if (chosen := self._next()) is None:
                return False
            client, height = chosen
            version, viewpoint, scene = client.version, client.viewpoint, self.scene
        started, coarse = self.clock(), height <= self.coarse_height

        def stop_if_outdated() -> None:
            if not coarse and client.version != version:
                raise _OutOfDateError

        try:
            view = render_viewpoint(scene, viewpoint, height, stop_if_outdated)
        except _OutOfDateError:
            return True
        self._speeds.append((self.clock() - started) / view.depth.numel())
        client.show(view)
        with self._lock:
            client.shown_version, client.shown_height = version, height
            client.shown_at = self.clock()
        return True

    @property
    def coarse_height(self) -> int:
        """Height of pictures that are fast enough for a moving camera."""
        if not self._speeds:
            return min(_COARSEST, self.height)
        # Not the mean: now and then a picture has to wait until its sources are encoded.
        pixels = _MOVING_SECONDS / statistics.median_low(self._speeds)
        return int(min(max(math.sqrt(pixels / _TYPICAL_ASPECT), _COARSEST), self.height))

    def _next(self) -> tuple[_Client, int] | None:
        """Choose the client whose picture comes next, and its height."""
        waiting = sorted(self._clients.values(), key=lambda client: client.shown_at)
        for client in waiting:
            if client.shown_version != client.version:
                return client, self.coarse_height
        for client in waiting:
            still = self.clock() - client.changed >= _SETTLED_SECONDS
            if still and client.shown_height < self.height:
                return client, min(self.height, 2 * client.shown_height)
        return None


def render_viewpoint(
    scene: RenderableScene, viewpoint: Viewpoint, height: int, before_chunk: BeforeChunk = None
) -> RenderedView:
    """Render from the sources that serve a camera best."""
    camera, size = viewpoint.at(height)
    (sources,) = scene.choose_sources(camera[None], size)
    return scene.render(camera, size, sources, before_chunk)
