"""Colour changes between the views of a scene, as between real photographs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class JitterConfig:
    """How far colours may stray, each view on its own."""

    brightness: float = 0.25
    """largest relative change of brightness"""
    contrast: float = 0.25
    """largest relative change of contrast"""
    saturation: float = 0.4
    """largest relative change of saturation"""
    white_balance: float = 0.08
    """largest relative change of a single colour channel"""
    grey_share: float = 0.05
    """share of views without colour"""


def jitter_colours(
    images: Float[Tensor, "batch view 3 height width"],
    config: JitterConfig,
    generator: torch.Generator,
) -> Float[Tensor, "batch view 3 height width"]:
    """Change brightness, contrast, saturation and white balance of every view."""
    leading = images.shape[:2]

    def draw(spread: float, channels: int = 1) -> Tensor:
        noise = torch.rand(*leading, channels, 1, 1, generator=generator, device=images.device)
        return 1 + spread * (2 * noise - 1)

    brightness, contrast, saturation = (
        draw(config.brightness),
        draw(config.contrast),
        draw(config.saturation),
    )
    balance = draw(config.white_balance, channels=3)
    colourless = torch.rand(*leading, 1, 1, 1, generator=generator, device=images.device)
    saturation = torch.where(colourless < config.grey_share, 0.0, saturation)
    images = images * brightness * balance
    weights = images.new_tensor(LUMINANCE)[:, None, None]
    grey = (images * weights).sum(2, keepdim=True)
    images = grey + saturation * (images - grey)
    mean = grey.mean((-2, -1), keepdim=True)
    return (mean + contrast * (images - mean)).clamp(0, 1)
