"""Progressive rendering for interactive cameras: resolution rises when the camera stops.

When the nearest source views of a camera change, the new set is encoded in the background. Until
then images are rendered from the previous set, at low resolution. While the camera moves, the set
at its extrapolated position is encoded in advance.
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
"""Range of the vertical field of view, in radians."""
_ASPECTS = (0.2, 5.0)
"""Range of width / height."""
_MAX_COORDINATE = 1e6
"""Largest absolute value in a camera's pose."""
FAILURES: tuple[type[Exception], ...] = (
    UserError,
    RuntimeError,
    ValueError,
    ArithmeticError,
    MemoryError,
    OSError,
)
"""Errors of a single image that must not end the viewer."""
_MOVING_SECONDS = 0.15
"""Time budget of an image while the camera moves; it determines the low resolution."""
_SETTLED_SECONDS = 0.2
"""Time without movement after which a camera counts as stopped."""
_PREFETCH_SECONDS = 1.0
"""Time over which a moving camera is extrapolated to encode source views in advance."""
_HYSTERESIS = 0.15
"""A moving camera keeps its source views for this share of the distance to the next ones beyond the
border between them, on which they would alternate."""
_MIN_STEP_SECONDS = 0.02
"""Lower bound of the time between movements, since browsers sometimes send several at once."""
_MIN_HEIGHT = 24
_TYPICAL_ASPECT = 1.5

Show = Callable[[RenderedView], None]


@dataclass(frozen=True)
class Viewpoint:
    """A browser's camera, independent of the image size."""

    c2w: torch.Tensor
    """4x4."""
    fov: float
    """Vertical field of view, in radians."""
    aspect: float
    """Width / height."""

    @classmethod
    def bounded(cls, c2w: torch.Tensor, fov: float, aspect: float) -> Viewpoint | None:
        """Clamp the values of a browser; return None if they are invalid."""
        valid = c2w.isfinite().all() and c2w.abs().max() < _MAX_COORDINATE
        if not valid or not (math.isfinite(fov) and math.isfinite(aspect)):
            return None
        return cls(c2w, _clamp(fov, _FIELDS_OF_VIEW), _clamp(aspect, _ASPECTS))

    def at(self, height: int) -> tuple[Cameras, tuple[int, int]]:
        """Return the pinhole camera and the size of an image of a given height."""
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
    """Number of changes that invalidated the shown image."""
    shown_version: int = -1
    shown_height: int = 0
    shown_at: float = float("-inf")
    sources: tuple[int, ...] = ()
    """Source views of the last image."""
    expects_sources: bool = False
    """Whether closer source views are being encoded."""
    velocity: torch.Tensor = field(default_factory=lambda: torch.zeros(3))
    """Velocity of the camera centre, in scene units per second."""

    def move(self, viewpoint: Viewpoint, now: float) -> None:
        """Update the viewpoint and the velocity."""
        elapsed = now - self.changed
        step = viewpoint.c2w[:3, 3] - self.viewpoint.c2w[:3, 3]
        self.velocity = step / max(elapsed, _MIN_STEP_SECONDS) * (elapsed < _SETTLED_SECONDS)
        self.viewpoint, self.changed = viewpoint, now
        self.version += 1


class _OutdatedError(Exception):
    """The camera moved while its image was being rendered."""


@dataclass
class ProgressiveRenderer:
    """Renders for all clients in one thread, the client with the oldest image first."""

    scene: RenderableScene
    height: int
    """Height of an image at full resolution."""
    clock: Callable[[], float] = time.monotonic
    _clients: dict[int, _Client] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _speeds: deque[float] = field(default_factory=lambda: deque(maxlen=5))
    """Seconds per pixel of the last images."""
    _encoder: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="encode")
    )
    _encoding: Future[None] | None = None
    _failed_sources: set[tuple[int, ...]] = field(default_factory=set)
    """Sets of source views that could not be encoded."""

    def update_camera(self, client_id: int, viewpoint: Viewpoint, show: Show) -> None:
        """Update a client's camera; ``show`` receives its images."""
        with self._lock:
            now = self.clock()
            client = self._clients.setdefault(client_id, _Client(show, viewpoint, now))
            client.move(viewpoint, now)

    def remove_client(self, client_id: int) -> None:
        """Stop rendering for a client."""
        with self._lock:
            self._clients.pop(client_id, None)

    def set_scene(self, scene: RenderableScene) -> None:
        """Replace the scene, for example by one with other sampling settings."""
        with self._lock:
            self.scene = scene
            self.refresh()

    def refresh(self) -> None:
        """Invalidate the images of all clients."""
        with self._lock:
            for client in self._clients.values():
                client.version += 1

    def step(self) -> bool:
        """Render and show the next pending image; return whether there was one.

        An image above the low resolution is aborted when its camera moves. One that fails is
        logged and skipped.
        """
        with self._lock:
            if (pending := self._next()) is None:
                return False
            client, height = pending
            version, viewpoint, scene = client.version, client.viewpoint, self.scene
        start, coarse = self.clock(), height <= self.coarse_height

        def stop_if_outdated() -> None:
            if not coarse and client.version != version:
                raise _OutdatedError

        try:
            camera, size = viewpoint.at(height)
            sources = self._choose_sources(client, scene, camera, size)
            view = scene.render(camera, size, sources, stop_if_outdated)
        except _OutdatedError:
            return True
        except FAILURES:
            logger.exception("an image of height %d could not be rendered", height)
            with self._lock:
                client.shown_version, client.shown_height = version, self.height
            return True
        self._speeds.append((self.clock() - start) / view.depth.numel())
        client.show(view)
        with self._lock:
            client.shown_version, client.shown_height = version, height
            client.shown_at = self.clock()
        return True

    def describe(self) -> str:
        """Return a status line."""
        if self._encoding and not self._encoding.done():
            return "encoding closer source views"
        with self._lock:
            heights = [client.shown_height for client in self._clients.values()]
        if not heights or not self._speeds:
            return "waiting"
        pixels = self.coarse_height**2 * _TYPICAL_ASPECT
        rate = 1 / max(statistics.median_low(self._speeds) * pixels, 1e-6)
        return f"height {max(heights)} of {self.height}; {rate:.0f} low-resolution images a second"

    def close(self) -> None:
        """Stop encoding in the background."""
        self._encoder.shutdown(wait=False, cancel_futures=True)

    def _choose_sources(
        self, client: _Client, scene: RenderableScene, camera: Cameras, size: tuple[int, int]
    ) -> tuple[int, ...]:
        """Return the nearest source views if they are encoded, else those of the last image."""
        (nearest,) = scene.choose_sources(camera[None], size)
        last = client.sources
        client.expects_sources = False
        moving = bool(self.clock() - client.changed < _SETTLED_SECONDS and client.velocity.any())
        if moving and last and nearest != last:
            centers = scene.cameras.centers
            step = centers[list(last)].mean(0) - centers[list(nearest)].mean(0)
            back = Cameras(camera.intrinsics, camera.c2w.clone())
            back.c2w[:3, 3] += _HYSTERESIS * step.to(back.c2w)
            (nearest,) = scene.choose_sources(back[None], size)
        if not last or scene.is_prepared(nearest) or not scene.is_prepared(last):
            client.sources = nearest
        elif nearest not in self._failed_sources:
            client.expects_sources = True
            self._encode_in_background(scene, nearest)
        if moving and not client.expects_sources:
            extrapolated = Cameras(camera.intrinsics, camera.c2w.clone())
            extrapolated.c2w[:3, 3] += _PREFETCH_SECONDS * client.velocity
            self._encode_in_background(scene, scene.choose_sources(extrapolated[None], size)[0])
        return client.sources

    def _encode_in_background(self, scene: RenderableScene, sources: tuple[int, ...]) -> None:
        """Encode source views in the background unless another set is being encoded."""
        idle = self._encoding is None or self._encoding.done()
        if idle and not scene.is_prepared(sources) and sources not in self._failed_sources:
            self._encoding = self._encoder.submit(self._encode, scene, sources)

    def _encode(self, scene: RenderableScene, sources: tuple[int, ...]) -> None:
        try:
            scene.prepare(sources)
        except FAILURES:
            logger.exception("source views %s cannot be encoded", sources)
            self._failed_sources.add(sources)
        if any(client.expects_sources for client in self._clients.values()):
            self.refresh()

    @property
    def coarse_height(self) -> int:
        """Height of the low-resolution images that are rendered while the camera moves."""
        if not self._speeds:
            return min(_MIN_HEIGHT, self.height)
        # The median excludes the rare images that wait for source views to be encoded.
        pixels = _MOVING_SECONDS / max(statistics.median_low(self._speeds), 1e-9)
        return int(min(max(math.sqrt(pixels / _TYPICAL_ASPECT), _MIN_HEIGHT), self.height))

    def _next(self) -> tuple[_Client, int] | None:
        """Choose the client to render for, and the height of its image."""
        clients = sorted(self._clients.values(), key=lambda client: client.shown_at)
        for client in clients:
            if client.shown_version != client.version:
                return client, self.coarse_height
        for client in clients:
            stopped = self.clock() - client.changed >= _SETTLED_SECONDS
            if stopped and client.shown_height < self.height and not client.expects_sources:
                return client, min(self.height, 2 * client.shown_height)
        return None


def _clamp(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])
