"""Volume rendering as pure functions: optical depths -> alphas -> weights -> composite.

The quadrature is that of Max (1995), in NeRF (Mildenhall et al. 2020) equation 3. The optical depth
of a bin, density times width, is what the radiance field returns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SOLID = 0.5
"""Opacity above which a pixel has a depth."""


@dataclass(frozen=True)
class Composite:
    """Rendered rays.

    A ray that hits nothing has opacity 0, the background's colour and the far depth.
    """

    rgb: Float[Tensor, "*batch ray channel"]
    """Colour; of a bundle the colours of its pixels, one after the other."""
    depth: Float[Tensor, "*batch ray"]
    """Expected z-depth; light that passes through every bin counts as coming from far."""
    opacity: Float[Tensor, "*batch ray"]
    weights: Float[Tensor, "*batch ray sample"]
    """Contribution of each bin; sums to the opacity."""


def alphas(depths: Float[Tensor, "*batch sample"]) -> Float[Tensor, "*batch sample"]:
    """Return 1 - exp(-optical depth), accurate for thin bins too."""
    return -torch.expm1(-depths)


def transmittance(depths: Float[Tensor, "*batch sample"]) -> Float[Tensor, "*batch sample"]:
    """Return the share of light that reaches each bin, accumulated in log space."""
    before = torch.cat([torch.zeros_like(depths[..., :1]), depths[..., :-1]], -1).cumsum(-1)
    return torch.exp(-before)


def composite_weights(
    weights: Float[Tensor, "*batch ray sample"],
    colors: Float[Tensor, "*batch ray sample channel"],
    t: Float[Tensor, "*batch ray sample"],
    far: Float[Tensor, "*batch #ray"],
    background: float = 0.0,
) -> Composite:
    """Sum colours and z-depths ``t`` by given weights over a grey background at depth ``far``."""
    opacity = weights.sum(-1)
    remaining = 1 - opacity
    return Composite(
        rgb=(weights[..., None] * colors).sum(-2) + remaining[..., None] * background,
        depth=(weights * t).sum(-1) + remaining * far,
        opacity=opacity,
        weights=weights,
    )
