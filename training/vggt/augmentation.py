"""Colour changes between the views of a scene, as between real photographs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

LUMINANCE = (0.299, 0.587, 0.114)


def jitter_colours(
    images: Float[Tensor, "batch view 3 height width"],
    generator: torch.Generator,
    *,
    brightness: float = 0.25,
    contrast: float = 0.25,
    saturation: float = 0.4,
    white_balance: float = 0.08,
    grey_share: float = 0.05,
) -> Float[Tensor, "batch view 3 height width"]:
    """Change the colours of every view on its own.

    Args:
        images: RGB in [0, 1].
        generator: On the device of the images.
        brightness: Largest relative change; likewise ``contrast`` and ``saturation``.
        contrast: About the mean of the view.
        saturation: About the grey of the pixel.
        white_balance: Largest relative change of a single colour channel.
        grey_share: Share of views that lose all colour.
    """
    leading = images.shape[:2]

    def draw(spread: float, channels: int = 1) -> Tensor:
        noise = torch.rand(*leading, channels, 1, 1, generator=generator, device=images.device)
        return 1 + spread * (2 * noise - 1)

    brighter, contrasted, saturated = draw(brightness), draw(contrast), draw(saturation)
    balance = draw(white_balance, channels=3)
    colourless = torch.rand(*leading, 1, 1, 1, generator=generator, device=images.device)
    saturated = torch.where(colourless < grey_share, 0.0, saturated)
    images = images * brighter * balance
    weights = images.new_tensor(LUMINANCE)[:, None, None]
    grey = (images * weights).sum(2, keepdim=True)
    images = grey + saturated * (images - grey)
    mean = grey.mean((-2, -1), keepdim=True)
    return (mean + contrasted * (images - mean)).clamp(0, 1)
