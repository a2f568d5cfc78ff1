"""Where to look along a ray: stratified bins first, then bins where the first pass found mass.

``t_edges`` are fence posts as in ``models.volume_rendering``. Randomness is an argument; without
a generator every function is deterministic.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def bin_centers(t_edges: Float[Tensor, "*batch edge"]) -> Float[Tensor, "*batch sample"]:
    """Return the middle of each bin."""
    return (t_edges[..., 1:] + t_edges[..., :-1]) / 2


def stratified_edges(
    near_far: Float[Tensor, "batch 2"],
    num_rays: int,
    num_bins: int,
    lindisp: bool = False,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch ray edge"]:
    """Divide [near, far] evenly in depth, or in inverse depth when ``lindisp``.

    With a generator, every inner edge moves at random by up to half a bin, each ray on its own.
    """
    steps = torch.linspace(0, 1, num_bins + 1, device=near_far.device, dtype=near_far.dtype)
    steps = steps.expand(near_far.shape[0], num_rays, -1)
    if generator is not None:
        jitter = _uniform(steps[..., 1:-1], generator) - 0.5
        steps = torch.cat(
            [steps[..., :1], steps[..., 1:-1] + jitter / num_bins, steps[..., -1:]], -1
        )
    near, far = near_far[:, 0, None, None], near_far[:, 1, None, None]
    if lindisp:
        return 1 / (steps / far + (1 - steps) / near)
    return near + steps * (far - near)


def importance_edges(
    t_edges: Float[Tensor, "batch ray edge"],
    weights: Float[Tensor, "batch ray sample"],
    num_bins: int,
    padding: float = 0.01,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch ray fine_edge"]:
    """Draw ``num_bins + 1`` sorted edges from the piecewise constant density that weights imply.

    Weights are first spread to their neighbours and padded, as in mip-NeRF (Barron et al. 2021,
    section 3.1), so that a surface between two bins is not missed and no part of the ray is
    ruled out. Not differentiable: the result is detached.
    """
    weights = _spread(weights.detach()) + padding
    pdf = weights / weights.sum(-1, keepdim=True)
    cdf = torch.cat([torch.zeros_like(pdf[..., :1]), pdf.cumsum(-1)], -1)
    count = num_bins + 1
    quantiles = (torch.arange(count, device=pdf.device, dtype=pdf.dtype) + 0.5) / count
    quantiles = quantiles.expand(*pdf.shape[:-1], count)
    if generator is not None:
        quantiles = quantiles + (_uniform(quantiles, generator) - 0.5) / count
    return _invert_cdf(t_edges.detach(), cdf, quantiles)


def _spread(weights: Float[Tensor, "*batch sample"]) -> Float[Tensor, "*batch sample"]:
    """Replace each weight by the mean of two maxima over neighbouring pairs."""
    padded = torch.cat([weights[..., :1], weights, weights[..., -1:]], -1)
    pairs = torch.maximum(padded[..., :-1], padded[..., 1:])
    return (pairs[..., :-1] + pairs[..., 1:]) / 2


def _invert_cdf(
    t_edges: Float[Tensor, "*batch edge"],
    cdf: Float[Tensor, "*batch edge"],
    quantiles: Float[Tensor, "*batch fine_edge"],
) -> Float[Tensor, "*batch fine_edge"]:
    above = torch.searchsorted(cdf.contiguous(), quantiles.contiguous(), right=True)
    above = above.clamp(1, cdf.shape[-1] - 1)
    low, high = cdf.gather(-1, above - 1), cdf.gather(-1, above)
    start, end = t_edges.gather(-1, above - 1), t_edges.gather(-1, above)
    share = ((quantiles - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return start + share * (end - start)


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
