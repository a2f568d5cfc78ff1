"""Image files, 8-bit conversion and colour maps."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from utils.errors import UserError
from utils.files import atomic_write

_QUALITIES = (92, 85, 75, 60)
"""JPEG qualities in the order of trial."""


def save_image(path: str | Path, image: Float[Tensor, "3 height width"], remedy: str = "") -> None:
    """Write an RGB image in [0, 1] atomically; the suffix chooses the format."""
    with atomic_write(path, remedy) as partial:
        Image.fromarray(to_bytes(image)).save(partial)


def save_small_image(
    path: str | Path, image: Float[Tensor, "3 height width"], max_bytes: int
) -> None:
    """Write an RGB image in [0, 1] as PNG, or as JPEG of the best quality within ``max_bytes``."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".jpg", ".jpeg", ".png"):
        raise UserError(f"{path}: cannot write {suffix or 'a name without an ending'}; use .jpg")
    kind, qualities = ("png", (0,)) if suffix == ".png" else ("jpeg", _QUALITIES)
    for quality in qualities:
        content = io.BytesIO()
        Image.fromarray(to_bytes(image)).save(content, kind, optimize=True, quality=quality)
        if len(content.getvalue()) <= max_bytes:
            with atomic_write(path) as partial:
                partial.write_bytes(content.getvalue())
            return
    raise UserError(
        f"{path}: would have more than {max_bytes / 2**20:g} MiB; show less, or smaller, or "
        "write a .jpg"
    )


def to_bytes(image: Float[Tensor, "3 height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Convert an RGB image in [0, 1] to 8-bit pixels."""
    pixels = (image.detach().float().clamp(0, 1) * 255).round().byte()
    return pixels.permute(1, 2, 0).contiguous().cpu().numpy()


def from_bytes(pixels: UInt8[np.ndarray, "height width 3"]) -> Float[Tensor, "3 height width"]:
    """Convert 8-bit pixels to an RGB image in [0, 1]."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def colorize(
    values: Float[Tensor, "height width"], low: float, high: float, name: str = "turbo"
) -> Float[Tensor, "3 height width"]:
    """Map values in [low, high] to colours; non-finite values become black."""
    table = matplotlib.colormaps[name].resampled(256)(range(256))[:, :3]
    lookup = torch.as_tensor(table, dtype=torch.float32, device=values.device)
    finite = values.isfinite()
    share = (torch.where(finite, values, low) - low) / max(high - low, 1e-12)
    colors = lookup[(share.clamp(0, 1) * 255).long()] * finite[..., None]
    return colors.permute(2, 0, 1)
