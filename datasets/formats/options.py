"""What can be chosen about reading a scene. This module does not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from utils.errors import UserError

Size = tuple[int, int]
"""Height and width."""

_MAX_SIDE = 1 << 14
_MAX_PIXELS = 30_000_000
"""Of an image at the size that it is read at: one takes a gibibyte while it is read."""


@dataclass(frozen=True)
class ReadOptions:
    """What can be chosen about a scene, whatever its format."""

    size: Size | None = None
    """Whatever the aspect; None: as the other options say."""
    near_far: tuple[float, float] | None = None
    """Nearest and farthest z-depth in the unit of the files; None: what the files say, else
    measured."""
    background: float = 1.0
    """Grey behind transparent pixels of rendered images."""
    scale: float = 1.0
    """Images are shrunk by this factor; sides must stay whole numbers."""
    cover: Size | None = None
    """Shrink images, in their own shape, until they just cover this height and width."""
    longest_side: int | None = None
    """Without ``cover``: shrink images, in their own shape, to this many pixels at most."""

    @property
    def allows_several_sizes(self) -> bool:
        """Whether images of several sizes are brought to one."""
        return any(way is not None for way in (self.size, self.cover, self.longest_side))

    def target_size(self, native: Size) -> Size:
        """Return the size to read at, given that of the largest images there are."""
        height, width = self._target_size(native)
        if height * width > _MAX_PIXELS:
            share = math.ceil(math.sqrt(height * width / _MAX_PIXELS))
            raise UserError(
                f"Images of {width}x{height} pixels are more than the {_MAX_PIXELS // 10**6} "
                "million that are computed with; let them be shrunk while they are read: "
                f"--image_size {height // share} {width // share}"
            )
        return height, width

    def _target_size(self, native: Size) -> Size:
        if self.size is not None:
            return self.size
        if self.cover is not None:
            factor = max(self.cover[0] / native[0], self.cover[1] / native[1])
        elif self.longest_side is not None:
            factor = self.longest_side / max(native)
        else:
            return scaled_size(native, self.scale)
        height, width = (max(round(side * min(factor, 1.0)), 1) for side in native)
        return height, width

    def check_size(self) -> None:
        """Refuse a size that no image can be brought to."""
        if self.size is not None and not all(1 <= side <= _MAX_SIDE for side in self.size):
            size = f"{self.size[1]}x{self.size[0]}"
            raise UserError(f"Images cannot be resized to {size}; sides must be 1 to {_MAX_SIDE}.")


def scaled_size(size: Size, scale: float) -> Size:
    """Scale an image size."""
    sides = [side * scale for side in size]
    whole = round(sides[0]), round(sides[1])
    if min(whole) < 1 or any(abs(a - b) > 1e-6 for a, b in zip(sides, whole, strict=True)):
        raise UserError(
            f"image_scale {scale:g} makes {sides[1]:g}x{sides[0]:g} of {size[1]}x{size[0]} images, "
            f"which are no whole pixels; give --image_size {max(whole[0], 1)} {max(whole[1], 1)} "
            "instead."
        )
    return whole
