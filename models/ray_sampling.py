"""Sampling along rays: depth planes over the whole range, then bins by predicted weights.

Edges are fence posts: ``t_edges`` holds n + 1 z-depths along a ray, everything per bin has n
entries. Randomness is an argument; without a generator every function is deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

BIN_CHANNELS = 2
"""Channels of ``bin_positions``."""


@dataclass(frozen=True)
class DepthPlanes:
    """Bins that divide [near, far] evenly in depth, or in inverse depth when ``lindisp``.

    Normalised depths run from 0 at near to 1 at far and do not depend on the scene's unit.
    """

    near_far: Float[Tensor, "batch 2"]
    count: int
    lindisp: bool = False

    def coordinates(self, depths: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Return the normalised depths of z-depths; below 0 or above 1 outside the range."""
        near, far = self._near_far(depths.ndim)
        if self.lindisp:
            # Bound inverse depths, which diverge towards the camera.
            depths = depths.maximum(near / 10)
            return (1 / near - 1 / depths) / (1 / near - 1 / far)
        return (depths - near) / (far - near)

    def depths(self, coordinates: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Return the z-depths of normalised depths in [0, 1]."""
        near, far = self._near_far(coordinates.ndim)
        if self.lindisp:
            return 1 / (coordinates / far + (1 - coordinates) / near)
        return near + coordinates * (far - near)

    def edges(self) -> Float[Tensor, "batch edge"]:
        """Return the ``count + 1`` edges of the bins."""
        steps = torch.linspace(0, 1, self.count + 1, device=self.near_far.device)
        return self.depths(steps.expand(len(self.near_far), -1))

    def centers(self) -> Float[Tensor, "batch plane"]:
        """Return the depth plane in the middle of each bin."""
        steps = torch.arange(self.count, device=self.near_far.device) + 0.5
        return self.depths((steps / self.count).expand(len(self.near_far), -1))

    def _near_far(self, axes: int) -> tuple[Tensor, Tensor]:
        shape = (-1,) + (1,) * (axes - 1)
        return self.near_far[:, 0].reshape(shape), self.near_far[:, 1].reshape(shape)


@dataclass(frozen=True)
class RayBins:
    """Bins that cover [near, far] of each ray, with weights from one level of the cost volume."""

    t_edges: Float[Tensor, "batch ray edge"]
    t: Float[Tensor, "batch ray sample"]
    """z-depth of the sample in each bin."""
    weights: Float[Tensor, "batch ray sample"]
    """Rendering weight of each bin; 1 - sum is background."""
    features: Float[Tensor, "batch ray sample channel"]

    def read_features(
        self, t: Float[Tensor, "batch ray query"]
    ) -> Float[Tensor, "batch ray query channel"]:
        """Interpolate the features linearly at z-depths ``t``."""
        above, share = _bracket(self.t, t)
        index = above[..., None].expand(*above.shape, self.features.shape[-1])
        start, end = self.features.gather(-2, index - 1), self.features.gather(-2, index)
        return start + share[..., None].to(start.dtype) * (end - start)

    def part(self, rays: slice) -> RayBins:
        """Return a slice of the rays."""
        return RayBins(*(value[:, rays] for value in vars(self).values()))

    def expected_surface(self) -> tuple[Float[Tensor, "batch ray"], Float[Tensor, "batch ray"]]:
        """Return mean z-depth and total weight of each ray's heaviest bin and its neighbours."""
        indices = torch.arange(self.weights.shape[-1], device=self.weights.device)
        near_peak = (indices - self.weights.argmax(-1, keepdim=True)).abs() <= 1
        weights = self.weights * near_peak
        total = weights.sum(-1)
        return (weights * self.t).sum(-1) / total.clamp_min(1e-6), total.clamp(0, 1)


def bin_positions(
    edges: Float[Tensor, "batch ray edge"],
    t: Float[Tensor, "batch ray sample"],
    planes: DepthPlanes,
) -> Float[Tensor, "batch ray sample 2"]:
    """Return the normalised depth of each bin's sample, and log2 of the bin's width in planes."""
    width = planes.coordinates(edges).diff(dim=-1) * planes.count
    return torch.stack([planes.coordinates(t), (width.clamp_min(0) + 0.01).log2() / 4], -1)


def importance_bins(
    t_edges: Float[Tensor, "batch ray edge"],
    weights: Float[Tensor, "batch ray sample"],
    num_bins: int,
    floor: float = 0.1,
    generator: torch.Generator | None = None,
    spread: bool = True,
) -> tuple[Float[Tensor, "batch ray fine_edge"], Float[Tensor, "batch ray fine_sample"]]:
    """Divide rays into ``num_bins`` bins of equal probability under a piecewise constant density.

    Returns the edges of the bins and the median of the density within each. A bin beside a surface
    may extend far into empty space; its median still lies close to the surface. The bins cover the
    whole range. The result is detached.

    Args:
        t_edges: Edges of the bins that the weights belong to.
        weights: Unnormalised density, at least 0.
        num_bins: Number of bins to return.
        floor: Share of the probability that is spread evenly over the given bins, so that no new
            bin covers more than ``1 / (floor * num_bins)`` of the range.
        generator: Moves each inner edge at random; on the device of the weights.
        spread: Whether to dilate the weights first, as in mip-NeRF (Barron et al. 2021, section
            3.1). This finds surfaces one bin away, at the cost of samples in empty bins.
    """
    quantiles = _jittered_quantiles(num_bins, weights, generator)
    medians = (quantiles[..., 1:] + quantiles[..., :-1]) / 2
    queries = torch.stack([quantiles[..., :-1], medians], -1).flatten(-2)
    queries = torch.cat([queries, quantiles[..., -1:]], -1)
    weights = (_dilate(weights) if spread else weights).detach() + 1e-6
    pdf = (1 - floor) * weights / weights.sum(-1, keepdim=True) + floor / weights.shape[-1]
    cdf = torch.cat([torch.zeros_like(pdf[..., :1]), pdf.cumsum(-1)], -1)
    # Inverse transform sampling: interpolate the inverse of the cumulative distribution.
    above, share = _bracket(cdf, queries, right=True)
    edges = t_edges.detach()
    start, end = edges.gather(-1, above - 1), edges.gather(-1, above)
    t = start + share * (end - start)
    return t[..., ::2], t[..., 1::2]


def _jittered_quantiles(
    num_bins: int, weights: Float[Tensor, "*batch sample"], generator: torch.Generator | None
) -> Float[Tensor, "*batch edge"]:
    """Divide [0, 1] evenly; a generator moves each inner edge by up to half a bin."""
    steps = torch.arange(num_bins + 1, device=weights.device, dtype=weights.dtype) / num_bins
    quantiles = steps.expand(*weights.shape[:-1], num_bins + 1)
    if generator is None:
        return quantiles
    inner = quantiles[..., 1:-1]
    noise = torch.rand(inner.shape, generator=generator, device=inner.device, dtype=inner.dtype)
    return torch.cat(
        [quantiles[..., :1], inner + (noise - 0.5) / num_bins, quantiles[..., -1:]], -1
    )


def _dilate(weights: Float[Tensor, "*batch sample"]) -> Float[Tensor, "*batch sample"]:
    """Replace each weight by the mean of two maxima over neighbouring pairs."""
    padded = torch.cat([weights[..., :1], weights, weights[..., -1:]], -1)
    pairs = torch.maximum(padded[..., :-1], padded[..., 1:])
    return (pairs[..., :-1] + pairs[..., 1:]) / 2


def _bracket(
    knots: Float[Tensor, "*batch knot"], x: Float[Tensor, "*batch query"], right: bool = False
) -> tuple[Int[Tensor, "*batch query"], Float[Tensor, "*batch query"]]:
    """Return the index of the knot above each query, and the query's share of the interval below.

    Shares are clamped to [0, 1]: interpolation is constant beyond the first and last knot.
    """
    above = torch.searchsorted(knots.contiguous(), x.contiguous(), right=right)
    above = above.clamp(1, knots.shape[-1] - 1)
    low, high = knots.gather(-1, above - 1), knots.gather(-1, above)
    return above, ((x - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
