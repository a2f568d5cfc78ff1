"""Volume rendering as pure functions: optical depths -> alphas -> weights -> composite.

The quadrature is that of Max (1995), in NeRF (Mildenhall et al. 2020) equation 3. The radiance
field returns the optical depth of each bin: its density times its width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SOLID = 0.5
"""Opacity above which the depth of a pixel is that of a surface."""


@dataclass(frozen=True)
class Composite:
    """Rendered rays. Where nothing is hit: opacity 0, the background's colour, the far depth."""

    rgb: Float[Tensor, "*batch ray channel"]
    """Colour; for a bundle, the colours of its pixels, concatenated."""
    depth: Float[Tensor, "*batch ray"]
    """Expected z-depth, with the remaining transmittance at the far depth."""
    opacity: Float[Tensor, "*batch ray"]
    weights: Float[Tensor, "*batch ray sample"]
    """Rendering weight of each bin; their sum is the opacity."""


def alphas(depths: Float[Tensor, "*batch sample"]) -> Float[Tensor, "*batch sample"]:
    """Return 1 - exp(-optical depth), accurate also for small depths."""
    return -torch.expm1(-depths)


def transmittance(depths: Float[Tensor, "*batch sample"]) -> Float[Tensor, "*batch sample"]:
    """Return the transmittance up to each bin, accumulated in log space."""
    before = torch.cat([torch.zeros_like(depths[..., :1]), depths[..., :-1]], -1).cumsum(-1)
    return torch.exp(-before)


def composite_weights(
    weights: Float[Tensor, "*batch ray sample"],
    colors: Float[Tensor, "*batch ray sample channel"],
    t: Float[Tensor, "*batch ray sample"],
    far: Float[Tensor, "*batch #ray"],
    background: float = 0.0,
) -> Composite:
    """Composite colours and z-depths ``t`` over a grey background at depth ``far``."""
    opacity = weights.sum(-1)
    remaining = 1 - opacity
    return Composite(
        rgb=(weights[..., None] * colors).sum(-2) + remaining[..., None] * background,
        depth=(weights * t).sum(-1) + remaining * far,
        opacity=opacity,
        weights=weights,
    )
