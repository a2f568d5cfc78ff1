"""Pictures for cameras that somebody drags: coarse at once, sharper while the camera stands."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from apps.rendering.scene import BeforeChunk, Picture, RenderableScene
from utils.cameras import Cameras

_MOVING_SECONDS = 0.15
"""How long a picture may take while the camera moves; it is as coarse as that demands."""
_SETTLED_SECONDS = 0.2
"""A camera that has not moved for so long stands still."""
_COARSEST = 24
_FINER = 2.0
"""Each picture of a camera that stands is so much finer than the one before."""
_REMEMBERED = 5
"""Pictures that tell how fast the machine is."""

Show = Callable[[Picture], None]


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
class _Watcher:
    """Somebody who looks at the scene."""

    show: Show
    viewpoint: Viewpoint
    changed: float
    version: int = 0
    """Counts what makes the shown picture out of date."""
    shown_version: int = -1
    shown_height: int = 0
    shown_at: float = float("-inf")


class _OutOfDateError(Exception):
    """The camera has moved on."""


@dataclass
class LiveRenderer:
    """Renders for all who look, one picture at a time, whoever waits longest first."""

    scene: RenderableScene
    height: int
    """Of the sharpest picture."""
    clock: Callable[[], float] = time.monotonic
    _watchers: dict[int, _Watcher] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _speeds: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """Seconds per pixel of the pictures made last."""

    def watch(self, watcher: int, viewpoint: Viewpoint, show: Show) -> None:
        """Note that somebody's camera is somewhere now."""
        with self._lock:
            if watcher not in self._watchers:
                self._watchers[watcher] = _Watcher(show, viewpoint, self.clock())
            known = self._watchers[watcher]
            known.viewpoint, known.changed = viewpoint, self.clock()
            known.version += 1

    def forget(self, watcher: int) -> None:
        """Stop rendering for somebody."""
        with self._lock:
            self._watchers.pop(watcher, None)

    def use(self, scene: RenderableScene) -> None:
        """Render another scene, or the same one otherwise, from now on."""
        with self._lock:
            self.scene = scene
            self.refresh()

    def refresh(self) -> None:
        """Show everything anew."""
        with self._lock:
            for watcher in self._watchers.values():
                watcher.version += 1

    def step(self) -> bool:
        """Render and show the next picture that somebody waits for; tell if there was one.

        A sharp picture, which may take long, is given up when it is out of date.
        """
        with self._lock:
            chosen = self._next()
            if chosen is None:
                return False
            watcher, height = chosen
            version, viewpoint, scene = watcher.version, watcher.viewpoint, self.scene
        started = self.clock()

        def stop_if_outdated() -> None:
            if height > self.coarse_height and watcher.version != version:
                raise _OutOfDateError

        try:
            picture = render_viewpoint(scene, viewpoint, height, stop_if_outdated)
        except _OutOfDateError:
            return True
        self._speeds.append((self.clock() - started) / picture.depth.numel())
        watcher.show(picture)
        with self._lock:
            watcher.shown_version, watcher.shown_height = version, height
            watcher.shown_at = self.clock()
        return True

    @property
    def coarse_height(self) -> int:
        """Height of pictures that are fast enough for a moving camera."""
        if not self._speeds:
            return min(_COARSEST, self.height)
        # Now and then a picture has to wait until its sources are encoded: not the mean.
        pixels = _MOVING_SECONDS / statistics.median_low(self._speeds)
        return int(min(max(math.sqrt(pixels / 1.5), _COARSEST), self.height))

    def _next(self) -> tuple[_Watcher, int] | None:
        """Choose whose picture comes next, and how fine it is to be."""
        waiting = sorted(self._watchers.values(), key=lambda watcher: watcher.shown_at)
        for watcher in waiting:
            if watcher.shown_version != watcher.version:
                return watcher, self.coarse_height
        for watcher in waiting:
            still = self.clock() - watcher.changed >= _SETTLED_SECONDS
            if still and watcher.shown_height < self.height:
                return watcher, min(self.height, round(watcher.shown_height * _FINER))
        return None


def render_viewpoint(
    scene: RenderableScene,
    viewpoint: Viewpoint,
    height: int,
    before_chunk: BeforeChunk | None = None,
) -> Picture:
    """Render from the sources that serve a camera best."""
    camera, size = viewpoint.at(height)
    alone = Cameras(camera.intrinsics[None], camera.c2w[None])
    (places,) = scene.choose_sources(alone, size)
    return scene.render(camera, size, places, before_chunk)
