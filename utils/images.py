"""Image files and colour maps."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import matplotlib
import torch
from jaxtyping import Float
from torch import Tensor


def save_image(path: str | Path, image: Float[Tensor, "3 height width"]) -> None:
    """Write an RGB image in [0, 1], whole or not at all; the suffix chooses the format."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (image.detach().float().clamp(0, 1) * 255).round().byte()
    partial = path.with_name(f".partial-{path.name}")
    imageio.imwrite(partial, pixels.permute(1, 2, 0).cpu().numpy())
    partial.replace(path)


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
