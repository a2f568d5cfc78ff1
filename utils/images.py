"""Image files and colour maps."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as imageio
import matplotlib
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from utils.errors import UserError

_QUALITIES = (92, 85, 75, 60)
"""Of JPEG, in the order in which they are tried."""


def save_image(path: str | Path, image: Float[Tensor, "3 height width"]) -> None:
    """Write an RGB image in [0, 1], whole or not at all; the suffix chooses the format."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    imageio.imwrite(partial, to_bytes(image))
    partial.replace(path)


def save_small_image(
    path: str | Path, image: Float[Tensor, "3 height width"], most_bytes: int
) -> None:
    """Write an RGB image in [0, 1] as JPEG, as well as the bytes allow, or as PNG.

    Raises:
        UserError: It needs more bytes, or cannot be written.
    """
    path = Path(path)
    picture = Image.fromarray(to_bytes(image))
    for content in _encodings(picture, path.suffix.lower()):
        if len(content) <= most_bytes:
            break
    else:
        raise UserError(
            f"{path}: would have more than {most_bytes / 2**20:g} MiB; show less, or smaller, or "
            "write a .jpg"
        )
    partial = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot write the picture ({error.strerror})") from error


def to_bytes(image: Float[Tensor, "3 height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Turn an RGB image in [0, 1] into 8-bit pixels as files have them."""
    pixels = (image.detach().float().clamp(0, 1) * 255).round().byte()
    return pixels.permute(1, 2, 0).contiguous().cpu().numpy()


def _encodings(picture: Image.Image, suffix: str) -> Iterator[bytes]:
    if suffix not in (".jpg", ".jpeg", ".png"):
        raise UserError(f"cannot write {suffix or 'a name without an ending'}; use .jpg or .png")
    for quality in (0,) if suffix == ".png" else _QUALITIES:
        buffer = io.BytesIO()
        if suffix == ".png":
            picture.save(buffer, "png", optimize=True)
        else:
            picture.save(buffer, "jpeg", quality=quality, optimize=True)
        yield buffer.getvalue()


def colorize(
    values: Float[Tensor, "height width"], low: float, high: float, name: str = "turbo"
) -> Float[Tensor, "3 height width"]:
    """Map values in [low, high] to colours; values that are not finite become black."""
    table = matplotlib.colormaps[name].resampled(256)(range(256))[:, :3]
    lookup = torch.as_tensor(table, dtype=torch.float32, device=values.device)
    finite = values.isfinite()
    share = (torch.where(finite, values, low) - low) / max(high - low, 1e-12)
    colors = lookup[(share.clamp(0, 1) * 255).long()] * finite[..., None]
    return colors.permute(2, 0, 1)
