"""Random pixels of targets, for models that render single rays."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.views import Views
from training.losses import masked_mean


def draw_pixels(
    views: Views, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "batch pixel 2"], Int[Tensor, "batch pixel"]]:
    """Draw pixels of one image for each scene: their middles, and their places row by row."""
    height, width = views.size
    shape, device = (len(views.images), count), views.images.device
    places = torch.randint(height * width, shape, generator=generator, device=device)
    return torch.stack([places % width + 0.5, places // width + 0.5], -1), places


def pixel_colors(
    views: Views, places: Int[Tensor, "batch pixel"]
) -> Float[Tensor, "batch pixel 3"]:
    """Return the true colours of pixels."""
    index = places[:, None].expand(-1, 3, -1)
    return views.images.flatten(2).gather(2, index).transpose(1, 2)


def pixel_error(
    rgb: Float[Tensor, "batch pixel 3"], views: Views, places: Int[Tensor, "batch pixel"]
) -> Float[Tensor, ""]:
    """Return the mean squared error of rendered pixels, over those that count."""
    error = (rgb - pixel_colors(views, places)).square().mean(-1)
    return masked_mean(error, views.masks.flatten(1).gather(1, places))
