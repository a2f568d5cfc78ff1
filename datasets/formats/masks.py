"""Masks of photographs: which pixels losses and metrics may count."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from datasets.formats.decoding import read_mask
from datasets.formats.image_files import DYNAMIC_MASK
from datasets.formats.images import resize_smooth
from datasets.formats.options import Size

_FULLY_COVERED = 0.999
"""Share of a resized pixel that must be counted in the original; leaves room for rounding."""


@dataclass(frozen=True)
class MaskFile:
    """An image that is white where pixels count, or, of moving things, where they do not."""

    path: Path
    white_is_left_out: bool = False

    def read(self) -> Bool[np.ndarray, "height width"]:
        """Return which pixels count."""
        white = read_mask(self.path)
        return ~white if self.white_is_left_out else white

    @property
    def advice(self) -> str:
        """What to do where no pixel counts."""
        if self.white_is_left_out:
            return "white pixels of a dynamic mask are left out; invert these masks or remove them"
        return "white pixels of a mask count; invert these masks or remove them"


def resized_mask(
    mask: Bool[np.ndarray, "height width"], size: Size
) -> Bool[np.ndarray, "new_height new_width"]:
    """Resize a mask; a new pixel counts if all that it covers does."""
    return resize_smooth(mask.astype(np.float32), size) > _FULLY_COVERED


def dynamic_mask_of(photo: Path) -> MaskFile | None:
    """Find the mask of moving things beside a photo: ``dynamic_mask_a.png`` of ``a.jpg``."""
    path = photo.with_name(f"{DYNAMIC_MASK}{photo.stem}.png")
    return MaskFile(path, white_is_left_out=True) if path.is_file() else None
