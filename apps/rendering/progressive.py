"""Progressive rendering for dragged cameras: coarse at once, sharper while the camera stands.

Sources that are nearer than those at hand are encoded in the background; until they are, pictures
are made from the old ones, and stay coarse. While the camera moves, those are encoded, too, that it
will come to if it goes on as it does.
"""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from models.scenes.renderable_scene import RenderableScene, RenderedView
from utils.cameras import Cameras
from utils.errors import UserError

logger = logging.getLogger(__name__)

_FIELDS_OF_VIEW = (0.02, 2.8)
"""Smallest and largest vertical angle, in radians, that is rendered."""
_ASPECTS = (0.2, 5.0)
"""Smallest and largest width over height."""
_FARTHEST = 1e6
"""Largest coordinate of a camera."""
FAILURES: tuple[type[Exception], ...] = (
    UserError,
    RuntimeError,
    ValueError,
    ArithmeticError,
    MemoryError,
    OSError,
)
"""What may go wrong with one picture and must not end the viewer."""
_MOVING_SECONDS = 0.15
"""How long a picture may take while the camera moves; it is as coarse as that demands."""
_SETTLED_SECONDS = 0.2
"""A camera that has not moved for so long stands still."""
_AHEAD_SECONDS = 1.0
"""Where the camera will be after so long is looked for sources to encode."""
_SHORTEST_STEP = 0.02
"""Seconds; a browser tells of several movements at once now and then."""
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

    @classmethod
    def bounded(cls, c2w: torch.Tensor, fov: float, aspect: float) -> Viewpoint | None:
        """Bring what a browser says into bounds; None where it makes no sense."""
        known = c2w.isfinite().all() and c2w.abs().max() < _FARTHEST
        if not known or not (math.isfinite(fov) and math.isfinite(aspect)):
            return None
        return cls(c2w, _clamp(fov, _FIELDS_OF_VIEW), _clamp(aspect, _ASPECTS))

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
    sources: tuple[int, ...] = ()
    """What the last picture was made from."""
    expects_sources: bool = False
    """Better ones are being encoded."""
    velocity: torch.Tensor = field(default_factory=lambda: torch.zeros(3))
    """Of the camera's centre, a second."""

    def move(self, viewpoint: Viewpoint, now: float) -> None:
        """Take another viewpoint, and the speed at which it was reached."""
        elapsed = now - self.changed
        step = viewpoint.c2w[:3, 3] - self.viewpoint.c2w[:3, 3]
        self.velocity = step / max(elapsed, _SHORTEST_STEP) * (elapsed < _SETTLED_SECONDS)
        self.viewpoint, self.changed = viewpoint, now
        self.version += 1


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
    _encoder: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="encode")
    )
    _encoding: Future[None] | None = None
    _unreadable: set[tuple[int, ...]] = field(default_factory=set)

    def update_camera(self, client_id: int, viewpoint: Viewpoint, show: Show) -> None:
        """Update a client's camera; ``show`` takes its pictures."""
        with self._lock:
            now = self.clock()
            client = self._clients.setdefault(client_id, _Client(show, viewpoint, now))
            client.move(viewpoint, now)

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

        A sharp picture, which may take long, is given up when it is out of date. A picture that
        fails is left out: other clients wait for theirs.
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
            camera, size = viewpoint.at(height)
            sources = self._choose_sources(client, scene, camera, size)
            view = scene.render(camera, size, sources, stop_if_outdated)
        except _OutOfDateError:
            return True
        except FAILURES:
            logger.exception("a picture of %d rows could not be made", height)
            with self._lock:
                client.shown_version, client.shown_height = version, self.height
            return True
        self._speeds.append((self.clock() - started) / view.depth.numel())
        client.show(view)
        with self._lock:
            client.shown_version, client.shown_height = version, height
            client.shown_at = self.clock()
        return True

    def describe(self) -> str:
        """Say what is going on, in a line."""
        if self._encoding and not self._encoding.done():
            return "encoding nearer photographs"
        with self._lock:
            heights = [one.shown_height for one in self._clients.values()]
        if not heights or not self._speeds:
            return "waiting"
        pixels = self.coarse_height**2 * _TYPICAL_ASPECT
        speed = 1 / max(statistics.median_low(self._speeds) * pixels, 1e-6)
        return f"{max(heights)} of {self.height} rows; {speed:.0f} coarse pictures a second"

    def close(self) -> None:
        """Encode nothing more."""
        self._encoder.shutdown(wait=False, cancel_futures=True)

    def _choose_sources(
        self, client: _Client, scene: RenderableScene, camera: Cameras, size: tuple[int, int]
    ) -> tuple[int, ...]:
        """Return the best sources if they can be read at once, else those of the last picture."""
        (best,) = scene.choose_sources(camera[None], size)
        last = client.sources
        client.expects_sources = False
        if not last or scene.is_prepared(best) or not scene.is_prepared(last):
            client.sources = best
        elif best not in self._unreadable:
            client.expects_sources = True
            self._encode_later(scene, best)
        moving = self.clock() - client.changed < _SETTLED_SECONDS and client.velocity.any()
        if moving and not client.expects_sources:
            ahead = Cameras(camera.intrinsics, camera.c2w.clone())
            ahead.c2w[:3, 3] += _AHEAD_SECONDS * client.velocity
            self._encode_later(scene, scene.choose_sources(ahead[None], size)[0])
        return client.sources

    def _encode_later(self, scene: RenderableScene, sources: tuple[int, ...]) -> None:
        """Encode sources in the background, unless they are or others are being encoded."""
        idle = self._encoding is None or self._encoding.done()
        if idle and not scene.is_prepared(sources) and sources not in self._unreadable:
            self._encoding = self._encoder.submit(self._encode, scene, sources)

    def _encode(self, scene: RenderableScene, sources: tuple[int, ...]) -> None:
        try:
            scene.prepare(sources)
        except FAILURES:
            logger.exception("photographs %s cannot be encoded", sources)
            self._unreadable.add(sources)
        if any(client.expects_sources for client in self._clients.values()):
            self.refresh()

    @property
    def coarse_height(self) -> int:
        """Height of pictures that are fast enough for a moving camera."""
        if not self._speeds:
            return min(_COARSEST, self.height)
        # Not the mean: now and then a picture has to wait until its sources are encoded.
        pixels = _MOVING_SECONDS / max(statistics.median_low(self._speeds), 1e-9)
        return int(min(max(math.sqrt(pixels / _TYPICAL_ASPECT), _COARSEST), self.height))

    def _next(self) -> tuple[_Client, int] | None:
        """Choose the client whose picture comes next, and its height."""
        waiting = sorted(self._clients.values(), key=lambda client: client.shown_at)
        for client in waiting:
            if client.shown_version != client.version:
                return client, self.coarse_height
        for client in waiting:
            still = self.clock() - client.changed >= _SETTLED_SECONDS
            if still and client.shown_height < self.height and not client.expects_sources:
                return client, min(self.height, 2 * client.shown_height)
        return None


def _clamp(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])
