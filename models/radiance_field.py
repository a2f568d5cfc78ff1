"""From what the views say about ray points to density and colour."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.aggregation import groupwise_similarity, masked_mean_variance, masked_softmax
from models.projection import PointObservations


@dataclass(frozen=True)
class RadianceFieldConfig:
    """Size of the radiance field."""

    field_width: int = 64
    """channels of per-view and per-point hidden states"""
    similarity_groups: int = 8
    """channel groups of the cross-view similarity; divides feature_channels"""
    ray_layers: int = 1
    """attention layers along each ray"""
    ray_heads: int = 4
    """heads of the attention along the ray; divides field_width"""

    def __post_init__(self) -> None:
        """Refuse sizes that do not divide."""
        if self.field_width % self.ray_heads:
            raise ValueError(
                f"field_width={self.field_width} is not a multiple of ray_heads={self.ray_heads}"
            )


class RadianceField(nn.Module):
    """Density from consensus of the views along the ray, colour blended from their pixels.

    A point that no view sees has density 0 and colour 0: nothing is known there.
    """

    def __init__(self, config: RadianceFieldConfig, feature_channels: int) -> None:
        super().__init__()
        width, self.groups = config.field_width, config.similarity_groups
        observed = feature_channels + 3
        statistics = 2 * observed + self.groups + 1
        self.view_encoder = _mlp(observed + 4 + statistics, width, width)
        self.view_score = nn.Linear(width, 1)
        self.point_encoder = _mlp(width + statistics, width, width)
        self.ray_layers = nn.ModuleList(
            RayAttention(width, config.ray_heads) for _ in range(config.ray_layers)
        )
        self.density = nn.Linear(width, 1)
        # Mostly empty space at the start: rays reach the surface, and so do the gradients.
        nn.init.constant_(self.density.bias, -3.0)
        self.blend = _mlp(2 * width + 4, width // 2, 1)

    def forward(
        self,
        observations: PointObservations,
        positions: Float[Tensor, "batch ray sample"],
    ) -> tuple[Float[Tensor, "batch ray sample"], Float[Tensor, "batch ray sample 3"]]:
        """Return densities (of no unit yet, not negative) and colours in [0, 1].

        Args:
            observations: What every source view says about each point.
            positions: Place of each sample between near (0) and far (1).
        """
        valid = observations.valid
        seen = torch.cat([observations.features, observations.colors], -1)
        statistics = self._statistics(seen, observations.features, valid)
        shared = statistics[:, None].expand(-1, seen.shape[1], -1, -1, -1)
        views = self.view_encoder(torch.cat([seen, observations.directions, shared], -1))
        attention = masked_softmax(self.view_score(views)[..., 0], valid)
        pooled = (attention[..., None] * views).sum(1)
        points = self.point_encoder(torch.cat([pooled, statistics], -1))
        any_valid = valid.any(1)
        for layer in self.ray_layers:
            points = layer(points, positions, any_valid)
        densities = F.softplus(self.density(points)[..., 0].float()) * any_valid
        return densities, self._blend(points, views, observations)

    def _statistics(
        self,
        seen: Float[Tensor, "batch view ray sample channel"],
        features: Float[Tensor, "batch view ray sample feature"],
        valid: Bool[Tensor, "batch view ray sample"],
    ) -> Float[Tensor, "batch ray sample statistic"]:
        mean, variance = masked_mean_variance(seen, valid)
        similarity = groupwise_similarity(features, valid, self.groups)
        share = valid.to(mean.dtype).mean(1)[..., None]
        return torch.cat([mean, variance, similarity, share], -1)

    def _blend(
        self,
        points: Float[Tensor, "batch ray sample width"],
        views: Float[Tensor, "batch view ray sample width"],
        observations: PointObservations,
    ) -> Float[Tensor, "batch ray sample 3"]:
        shared = points[:, None].expand_as(views)
        logits = self.blend(torch.cat([shared, views, observations.directions], -1))[..., 0]
        weights = masked_softmax(logits.float(), observations.valid)
        return (weights[..., None] * observations.colors.float()).sum(1)


NUM_FREQUENCIES = 6


class RayAttention(nn.Module):
    """One pre-norm transformer layer over the samples of a ray."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Linear(2 * NUM_FREQUENCIES, width, bias=False)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = _mlp(width, 2 * width, width)

    def forward(
        self,
        points: Float[Tensor, "batch ray sample width"],
        positions: Float[Tensor, "batch ray sample"],
        valid: Bool[Tensor, "batch ray sample"],
    ) -> Float[Tensor, "batch ray sample width"]:
        """Let each sample look at the others of its ray that some view sees."""
        points = points + self.position(_fourier(positions).to(points.dtype))
        qkv = rearrange(
            self.qkv(self.norm1(points)), "b r s (k h c) -> k (b r) h s c", k=3, h=self.heads
        )
        # A ray that nobody sees attends evenly: softmax over nothing would be undefined.
        allowed = rearrange(valid | ~valid.any(-1, keepdim=True), "b r s -> (b r) 1 1 s")
        bias = torch.zeros(allowed.shape, dtype=qkv.dtype, device=qkv.device)
        mixed = F.scaled_dot_product_attention(
            qkv[0], qkv[1], qkv[2], attn_mask=bias.masked_fill(~allowed, -1e4)
        )
        points = points + self.proj(
            rearrange(mixed, "(b r) h s c -> b r s (h c)", b=points.shape[0])
        )
        return points + self.mlp(self.norm2(points))


def _fourier(positions: Float[Tensor, "*batch sample"]) -> Float[Tensor, "*batch sample channel"]:
    """Encode positions in [0, 1] by sines and cosines of doubling frequency."""
    octaves = torch.pi * 2.0 ** torch.arange(NUM_FREQUENCIES, device=positions.device)
    angles = positions[..., None] * octaves.to(positions.dtype)
    return torch.cat([angles.sin(), angles.cos()], -1)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
