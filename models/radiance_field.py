"""The radiance field: what the source views show at ray points becomes density and colour."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.config import RadianceFieldConfig
from models.projection import (
    SourceSamples,
    view_statistics,
    weighted_sum,
    working_precision,
)

DEPTH_CHANNELS, DIRECTION_CHANNELS = 3, 4
NUM_FREQUENCIES = 6


@dataclass(frozen=True)
class FieldSamples:
    """The radiance field at ray points."""

    densities: Float[Tensor, "batch ray sample"]
    """Optical depths of the bins that the samples stand for; not negative."""
    colors: Float[Tensor, "batch ray sample channel"]
    """In [0, 1], of each pixel of a bundle, one after the other."""
    features: Float[Tensor, "batch ray sample feature"]
    """For the decoder."""


class RadianceField(nn.Module):
    """Density from the agreement of the views along the ray, colour blended from their pixels.

    A regressed colour takes part in the blend: it fills in where no view sees a point.
    """

    def __init__(
        self,
        config: RadianceFieldConfig,
        feature_channels: int,
        context_channels: int,
        num_pixels: int,
    ) -> None:
        """Build the field for so many channels of a feature map and of the volume's context.

        ``num_pixels`` share a ray.
        """
        super().__init__()
        width, narrow = config.field_width, config.view_width
        self.groups = config.similarity_groups
        seen = feature_channels + 3
        statistics = 2 * seen + self.groups + 1 + context_channels
        self.view_input = nn.Linear(seen + DIRECTION_CHANNELS + DEPTH_CHANNELS, narrow)
        # What all views share enters once per point, not once per view.
        self.shared_input = nn.Linear(statistics, narrow, bias=False)
        self.view_hidden = nn.Linear(narrow, narrow)
        # A bias would shift the scores of all views alike, which softmax ignores.
        self.view_score = nn.Linear(narrow, 1, bias=False)
        self.point_encoder = mlp(narrow + statistics, width, width)
        self.ray_layers = nn.ModuleList(
            RayAttention(width, config.ray_heads) for _ in range(config.ray_layers)
        )
        self.density = nn.Linear(width, 1)
        # A sample stands for a whole bin, of which there are few: half opaque at the start.
        nn.init.zeros_(self.density.bias)
        self.blend_view = nn.Linear(narrow, narrow)
        self.blend_point = nn.Linear(width, narrow, bias=False)
        self.blend_score = nn.Linear(narrow, 1)
        self.regressed = mlp(width, narrow, 3 * num_pixels + 1)
        self.feature = nn.Linear(width + feature_channels, config.composited_channels)

    def forward(
        self,
        samples: SourceSamples,
        context: Float[Tensor, "batch ray sample context"],
        positions: Float[Tensor, "batch ray sample"],
    ) -> FieldSamples:
        """Return densities, colours and features.

        ``context`` are the cost volume's features; ``positions`` run from near (0) to far (1).
        """
        features, depth = working_precision(samples.features), samples.depth
        residuals = torch.stack([depth.residuals, depth.confidence, depth.visibility], -1)
        parts = [features, samples.colors, samples.directions, residuals]
        seen = torch.cat([part.to(features.dtype) for part in parts], -1)
        statistics = self._statistics(features, samples, context)
        views = F.gelu(self.view_input(seen) + self.shared_input(statistics)[:, None])
        views = F.gelu(self.view_hidden(views))
        attention = masked_softmax(self.view_score(views)[..., 0], samples.valid)
        pooled = weighted_sum(attention[..., None], views)
        points = self.point_encoder(torch.cat([pooled, statistics], -1))
        for layer in self.ray_layers:
            points = layer(points, positions)
        densities = F.softplus(self.density(points)[..., 0].float())
        return FieldSamples(densities, *self._blend(points, views, samples))

    def _statistics(
        self,
        features: Float[Tensor, "batch view ray sample feature"],
        samples: SourceSamples,
        context: Float[Tensor, "batch ray sample context"],
    ) -> Float[Tensor, "batch ray sample statistic"]:
        seen = view_statistics(features, samples.valid)
        colors = view_statistics(samples.colors, samples.valid)
        count = seen.count[..., None]
        parts = [
            *(seen.mean, seen.variance, colors.mean, colors.variance),
            *(seen.similarity(self.groups), count / (1 + count), context),
        ]
        return torch.cat([part.to(features.dtype) for part in parts], -1)

    def _blend(
        self,
        points: Float[Tensor, "batch ray sample width"],
        views: Float[Tensor, "batch view ray sample view_width"],
        samples: SourceSamples,
    ) -> tuple[Float[Tensor, "batch ray sample c"], Float[Tensor, "batch ray sample feature"]]:
        """Return blended colours and features."""
        hidden = F.gelu(self.blend_view(views) + self.blend_point(points)[:, None])
        scores = self.blend_score(hidden)[..., 0].float()
        own = self.regressed(points).float()
        logits = torch.cat([scores, own[:, None, ..., -1]], 1)
        allowed = torch.cat([samples.valid, torch.ones_like(samples.valid[:, :1])], 1)
        weights = masked_softmax(logits, allowed)
        of_views = weights[:, :-1, ..., None]
        blended = weighted_sum(of_views, samples.pixel_colors.float())
        colors = blended + weights[:, -1, ..., None] * torch.sigmoid(own[..., :-1])
        features = working_precision(samples.features)
        shown = weighted_sum(of_views.to(features.dtype), features)
        return colors, self.feature(torch.cat([points.to(shown.dtype), shown], -1)).float()


class RayAttention(nn.Module):
    """One pre-norm transformer layer over the samples of a ray."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Linear(2 * NUM_FREQUENCIES, width, bias=False)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = mlp(width, 2 * width, width)

    def forward(
        self,
        points: Float[Tensor, "batch ray sample width"],
        positions: Float[Tensor, "batch ray sample"],
    ) -> Float[Tensor, "batch ray sample width"]:
        """Let the samples of each ray attend to each other.

        Written out, because fused attention is made for long sequences: a ray has a few samples,
        and there are more rays than its kernels have blocks.
        """
        points = points + self.position(_fourier(positions).to(points.dtype))
        q, k, v = rearrange(
            self.qkv(self.norm1(points)), "b r s (k h c) -> k b r h s c", k=3, h=self.heads
        )
        attention = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
        mixed = rearrange(attention.to(v.dtype) @ v, "b r h s c -> b r s (h c)")
        points = points + self.proj(mixed)
        return points + self.mlp(self.norm2(points))


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Build a perceptron with one hidden layer."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


def masked_softmax(
    logits: Float[Tensor, "batch view ray sample"], valid: Bool[Tensor, "batch view ray sample"]
) -> Float[Tensor, "batch view ray sample"]:
    """Return softmax over the views that see a point; zeros where none does."""
    filled = logits.masked_fill(~valid, -1e4)
    return torch.softmax(filled, 1) * valid.to(logits.dtype)


def _fourier(positions: Float[Tensor, "*batch sample"]) -> Float[Tensor, "*batch sample channel"]:
    """Encode positions in [0, 1] by sines and cosines of doubling frequency."""
    octaves = torch.pi * 2.0 ** torch.arange(NUM_FREQUENCIES, device=positions.device)
    angles = positions[..., None] * octaves.to(positions.dtype)
    return torch.cat([angles.sin(), angles.cos()], -1)
