"""Samples along a ray: planes over the whole range, then bins by the planes' weights.

Edges are fence posts: ``t_edges`` holds n + 1 z-depths along a ray, everything per bin has n
entries. Randomness is an argument; without a generator every function is deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class DepthPlanes:
    """Bins that divide [near, far] evenly in depth, or in inverse depth when ``lindisp``.

    Coordinates run from 0 at near to 1 at far and are free of the scene's unit.
    """

    near_far: Float[Tensor, "batch 2"]
    count: int
    lindisp: bool = False

    def coordinates(self, depths: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Return the coordinates of z-depths; below 0 or above 1 outside the range."""
        near, far = self._near_far(depths.ndim)
        if self.lindisp:
            # Nearer than a tenth of near, inverse depths grow beyond any use.
            depths = depths.maximum(near / 10)
            return (1 / near - 1 / depths) / (1 / near - 1 / far)
        return (depths - near) / (far - near)

    def depths(self, coordinates: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Return the z-depths at coordinates in [0, 1]."""
        near, far = self._near_far(coordinates.ndim)
        if self.lindisp:
            return 1 / (coordinates / far + (1 - coordinates) / near)
        return near + coordinates * (far - near)

    def edges(self) -> Float[Tensor, "batch edge"]:
        """Return the ``count + 1`` borders of the bins."""
        steps = torch.linspace(0, 1, self.count + 1, device=self.near_far.device)
        return self.depths(steps.expand(len(self.near_far), -1))

    def centers(self) -> Float[Tensor, "batch plane"]:
        """Return the planes: the middle of each bin."""
        steps = torch.arange(self.count, device=self.near_far.device) + 0.5
        return self.depths((steps / self.count).expand(len(self.near_far), -1))

    def _near_far(self, axes: int) -> tuple[Tensor, Tensor]:
        shape = (-1,) + (1,) * (axes - 1)
        return self.near_far[:, 0].reshape(shape), self.near_far[:, 1].reshape(shape)


@dataclass(frozen=True)
class RayBins:
    """What a level of the cost volume says of rays: weights of bins that cover [near, far]."""

    t_edges: Float[Tensor, "batch ray edge"]
    """z-depths of the bins' borders."""
    t: Float[Tensor, "batch ray sample"]
    """z-depth at which each bin was judged."""
    weights: Float[Tensor, "batch ray sample"]
    """Rendering weight of each bin; 1 - sum is background."""
    features: Float[Tensor, "batch ray sample channel"]

    def read_features(
        self, t: Float[Tensor, "batch ray query"]
    ) -> Float[Tensor, "batch ray query channel"]:
        """Interpolate the features at z-depths."""
        above = torch.searchsorted(self.t.contiguous(), t.contiguous())
        above = above.clamp(1, self.t.shape[-1] - 1)
        low, high = self.t.gather(-1, above - 1), self.t.gather(-1, above)
        share = ((t - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)[..., None]
        places = torch.stack([above - 1, above], 0)[..., None]
        places = places.expand(*places.shape[:-1], self.features.shape[-1])
        start, end = (self.features.gather(-2, place) for place in places)
        return start + share.to(start.dtype) * (end - start)

    def part(self, rays: slice) -> RayBins:
        """Return some of the rays."""
        return RayBins(*(value[:, rays] for value in vars(self).values()))

    def expected_surface(self) -> tuple[Float[Tensor, "batch ray"], Float[Tensor, "batch ray"]]:
        """Return the z-depth around each ray's likeliest bin, and the weight there."""
        places = torch.arange(self.weights.shape[-1], device=self.weights.device)
        near = (places - self.weights.argmax(-1, keepdim=True)).abs() <= 1
        around = self.weights * near
        mass = around.sum(-1)
        return (around * self.t).sum(-1) / mass.clamp_min(1e-6), mass.clamp(0, 1)


def bin_centers(t_edges: Float[Tensor, "*batch edge"]) -> Float[Tensor, "*batch sample"]:
    """Return the middle of each bin."""
    return (t_edges[..., 1:] + t_edges[..., :-1]) / 2


def importance_bins(
    t_edges: Float[Tensor, "batch ray edge"],
    weights: Float[Tensor, "batch ray sample"],
    num_bins: int,
    floor: float = 0.1,
    generator: torch.Generator | None = None,
    spread: bool = True,
) -> tuple[Float[Tensor, "batch ray fine_edge"], Float[Tensor, "batch ray fine_sample"]]:
    """Divide the rays into ``num_bins`` bins of equal mass under the density that weights imply.

    Returns their borders, and where each has half of its mass: a bin beside a surface may reach far
    into empty space, but its mass lies at the surface. The bins cover the whole of each ray: what
    is improbable lies in wide bins, but in some. Not differentiable: the result is detached.

    Args:
        t_edges: Borders of the bins that the weights belong to.
        weights: Not negative.
        num_bins: Bins to return.
        floor: Share of the mass that is spread evenly over the given bins whatever the weights
            are. No new bin then covers more than ``1 / (floor * num_bins)`` of the range.
        generator: Moves each inner edge at random, on the device of the weights.
        spread: Whether weights are first spread to their neighbours, as in mip-NeRF (Barron et al.
            2021, section 3.1): a surface that they miss by a bin is found, but half of the samples
            lie beside one that they hit.
    """
    quantiles = _jittered(num_bins, weights, generator)
    both = torch.stack([quantiles[..., :-1], bin_centers(quantiles)], -1).flatten(-2)
    both = torch.cat([both, quantiles[..., -1:]], -1)
    places = _inverse(t_edges, weights, floor, spread, both)
    return places[..., ::2], places[..., 1::2]


def _jittered(
    num_bins: int, weights: Float[Tensor, "*batch sample"], generator: torch.Generator | None
) -> Float[Tensor, "*batch edge"]:
    """Divide [0, 1] evenly; a generator moves each inner edge by up to half a bin."""
    steps = torch.arange(num_bins + 1, device=weights.device, dtype=weights.dtype) / num_bins
    quantiles = steps.expand(*weights.shape[:-1], num_bins + 1)
    if generator is None:
        return quantiles
    inner = quantiles[..., 1:-1]
    inner = inner + (_uniform(inner, generator) - 0.5) / num_bins
    return torch.cat([quantiles[..., :1], inner, quantiles[..., -1:]], -1)


def _inverse(
    t_edges: Float[Tensor, "batch ray edge"],
    weights: Float[Tensor, "batch ray sample"],
    floor: float,
    spread: bool,
    quantiles: Float[Tensor, "batch ray quantile"],
) -> Float[Tensor, "batch ray quantile"]:
    """Invert the cumulative distribution that weights imply."""
    weights = (_spread(weights) if spread else weights).detach() + 1e-6
    pdf = (1 - floor) * weights / weights.sum(-1, keepdim=True) + floor / weights.shape[-1]
    cdf = torch.cat([torch.zeros_like(pdf[..., :1]), pdf.cumsum(-1)], -1)
    return _interpolate(quantiles, cdf, t_edges.detach())


def _spread(weights: Float[Tensor, "*batch sample"]) -> Float[Tensor, "*batch sample"]:
    """Replace each weight by the mean of two maxima over neighbouring pairs."""
    padded = torch.cat([weights[..., :1], weights, weights[..., -1:]], -1)
    pairs = torch.maximum(padded[..., :-1], padded[..., 1:])
    return (pairs[..., :-1] + pairs[..., 1:]) / 2


def _interpolate(
    x: Float[Tensor, "*batch query"],
    knots: Float[Tensor, "*batch knot"],
    values: Float[Tensor, "*batch knot"],
) -> Float[Tensor, "*batch query"]:
    """Evaluate piecewise linear functions, each constant beyond its first and last knot.

    With a cumulative distribution as ``knots`` this inverts it (inverse transform sampling).
    """
    above = torch.searchsorted(knots.contiguous(), x.contiguous(), right=True)
    above = above.clamp(1, knots.shape[-1] - 1)
    low, high = knots.gather(-1, above - 1), knots.gather(-1, above)
    start, end = values.gather(-1, above - 1), values.gather(-1, above)
    share = ((x - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return start + share * (end - start)


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
