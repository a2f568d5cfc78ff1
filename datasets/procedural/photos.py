"""Photographs as textures: an atlas with smaller copies of each, for surfaces far away."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from datasets.formats.images import read_image
from utils.errors import UserError

SIDE = 256
"""Photographs are cut square and brought to this side."""
LEVELS = 5
"""Copies of each, every one half as wide as the one before."""
MOST = 256
"""So many photographs are read at most."""


def load_photos(folder: Path | str) -> Float[Tensor, "photo texel 3"]:
    """Read the photographs of a folder as linear light, all levels of each in one row.

    Raises:
        UserError: There is no such folder, or no photograph in it.
    """
    folder = Path(folder)
    kinds = {".jpg", ".jpeg", ".png"}
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in kinds]
    if not files:
        raise UserError(f"{folder}: no JPEG or PNG photographs here (texture_folder).")
    return torch.stack([_levels(path) for path in files[:MOST]])


def _levels(path: Path) -> Float[Tensor, "texel 3"]:
    image = torch.from_numpy(read_image(path))
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side].permute(2, 0, 1)[None] ** 2.2
    level = F.interpolate(square, (SIDE, SIDE), mode="bilinear", antialias=True)
    rows = []
    for _ in range(LEVELS):
        rows.append(level[0].permute(1, 2, 0).reshape(-1, 3))
        level = F.avg_pool2d(level, 2)
    return torch.cat(rows)


def photo_colour(
    photos: Float[Tensor, "photo texel 3"],
    which: Int[Tensor, "scene ray"],
    u: Float[Tensor, "scene ray"],
    v: Float[Tensor, "scene ray"],
    footprint: Float[Tensor, "scene ray"],
) -> Float[Tensor, "scene ray 3"]:
    """Look photographs up, bilinearly in the level that goes with the pixel's footprint.

    One photograph fills one period; every other one is mirrored, so that there is no seam.
    """
    level = (footprint * SIDE).clamp_min(1).log2().round().clamp(0, LEVELS - 1).long()
    side = SIDE >> level
    # Levels lie one after the other: the geometric series of their areas.
    start = (SIDE * SIDE - side * side) * 4 // 3 + which.remainder(len(photos)) * photos.shape[1]
    x, y = _mirrored(u) * side - 0.5, _mirrored(v) * side - 0.5
    column, row = x.floor(), y.floor()
    total = torch.zeros(*u.shape, 3, device=u.device)
    flat = photos.flatten(0, 1)
    for dx in (0, 1):
        for dy in (0, 1):
            i = (column.long() + dx).clamp_min(0).minimum(side - 1)
            j = (row.long() + dy).clamp_min(0).minimum(side - 1)
            weight = (1 - (x - column - dx).abs()) * (1 - (y - row - dy).abs())
            total = total + weight[..., None] * flat[start + j * side + i]
    return total


def _mirrored(values: Float[Tensor, "scene ray"]) -> Float[Tensor, "scene ray"]:
    return 1 - (values.remainder(2) - 1).abs()
