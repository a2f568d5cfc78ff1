"""Decoded images that are kept, within a stated amount of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from datasets.posed_scene import ViewPixels


class PixelCache:
    """Keeps what was read last. Every worker process has its own; nothing is shared."""

    def __init__(self, max_bytes: int) -> None:
        """Keep at most so many bytes of pixels; 0 keeps nothing."""
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._held: OrderedDict[Hashable, ViewPixels] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        """Bytes of pixels that are kept."""
        return self._held_bytes

    def get(self, key: Hashable, read: Callable[[], ViewPixels]) -> ViewPixels:
        """Return the pixels of a key, reading them unless they are kept. They are not to change."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        pixels = read()
        size = _bytes_of(pixels)
        if size > self._max_bytes:
            return pixels
        while self._held_bytes + size > self._max_bytes:
            self._held_bytes -= _bytes_of(self._held.popitem(last=False)[1])
        self._held[key] = pixels
        self._held_bytes += size
        return pixels


@dataclass(frozen=True)
class CachedReader:
    """Reads the views of a scene through a cache."""

    scene: Hashable
    """Tells the scenes of a cache apart."""
    read_view: Callable[[int], ViewPixels]
    cache: PixelCache

    def __call__(self, view: int) -> ViewPixels:
        """Read one view, or remember it."""
        return self.cache.get((self.scene, view), lambda: self.read_view(view))


def _bytes_of(pixels: ViewPixels) -> int:
    return pixels.image.nbytes + pixels.depth.nbytes + pixels.mask.nbytes
