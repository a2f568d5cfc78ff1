"""Options of reading a scene, such as the image size. This module does not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from utils.errors import UserError

Size = tuple[int, int]
"""Height and width."""

_MAX_SIDE = 1 << 14
MAX_PIXELS = 30_000_000
"""Of an image after resizing; reading one of this size takes a gibibyte of memory."""


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading a scene of any format."""

    size: Size | None = None
    """Resize to this size, whatever the aspect; None: as the other options say."""
    near_far: tuple[float, float] | None = None
    """Nearest and farthest z-depth in the unit of the files; None: of the files, else measured."""
    background: float = 1.0
    """Grey value behind transparent pixels."""
    scale: float = 1.0
    """Scale images by this factor; sides must stay whole numbers."""
    cover: Size | None = None
    """Shrink images, keeping their aspect, until they just cover this size."""
    longest_side: int | None = None
    """Without ``cover``: shrink images, keeping their aspect, to this many pixels at most."""

    def __post_init__(self) -> None:
        """Refuse a size that no image can be resized to."""
        if self.size is not None and not all(1 <= side <= _MAX_SIDE for side in self.size):
            size = f"{self.size[1]}x{self.size[0]}"
            raise UserError(f"Images cannot be resized to {size}; sides must be 1 to {_MAX_SIDE}.")

    @property
    def allows_several_sizes(self) -> bool:
        """Whether images of several sizes are resized to one."""
        return any(option is not None for option in (self.size, self.cover, self.longest_side))

    def target_size(self, original: Size) -> Size:
        """Return the size to read at, given that of the largest images."""
        height, width = self._target_size(original)
        if height * width > MAX_PIXELS:
            divisor = math.ceil(math.sqrt(height * width / MAX_PIXELS))
            raise UserError(
                f"Images of {width}x{height} pixels are more than the limit of "
                f"{MAX_PIXELS // 10**6} million; let them be shrunk while they are read: "
                f"--image_size {height // divisor} {width // divisor}"
            )
        return height, width

    def _target_size(self, original: Size) -> Size:
        if self.size is not None:
            return self.size
        if self.cover is not None:
            factor = max(self.cover[0] / original[0], self.cover[1] / original[1])
        elif self.longest_side is not None:
            factor = self.longest_side / max(original)
        else:
            return scaled_size(original, self.scale)
        height, width = (max(round(side * min(factor, 1.0)), 1) for side in original)
        return height, width


def scaled_size(size: Size, scale: float) -> Size:
    """Scale an image size; refuse a result that is not in whole pixels."""
    height, width = size[0] * scale, size[1] * scale
    whole = round(height), round(width)
    if min(whole) < 1 or abs(height - whole[0]) > 1e-6 or abs(width - whole[1]) > 1e-6:
        raise UserError(
            f"image_scale {scale:g} makes {width:g}x{height:g} of {size[1]}x{size[0]} images, "
            f"which are not whole pixels; give --image_size {max(whole[0], 1)} {max(whole[1], 1)} "
            "instead."
        )
    return whole
