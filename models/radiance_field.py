"""The radiance field: density and colour at ray points from samples of the source views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.config import RadianceFieldConfig
from models.projection import SourceSamples, view_statistics, weighted_sum, working_precision

DEPTH_CHANNELS, DIRECTION_CHANNELS = 3, 4
NUM_FREQUENCIES = 6
FEW_SAMPLES = 4
"""Samples per ray up to which attention is computed element by element on a GPU."""


@dataclass(frozen=True)
class FieldSamples:
    """Output of the radiance field at ray points."""

    densities: Float[Tensor, "batch ray sample"]
    """Optical depth of each sample's bin; at least 0."""
    colors: Float[Tensor, "batch ray sample channel"]
    """In [0, 1]: colours of the bundle's pixels, concatenated."""
    features: Float[Tensor, "batch ray sample feature"]
    """Input of the decoder, after compositing."""


class RadianceField(nn.Module):
    """Density from features of all views along the ray; colour blended from the views' pixels.

    The blend includes a regressed colour, which is used where no view sees a point.
    """

    def __init__(
        self,
        config: RadianceFieldConfig,
        feature_channels: int,
        context_channels: int,
        num_pixels: int,
    ) -> None:
        """Build the field for rays that ``num_pixels`` pixels share."""
        super().__init__()
        width, narrow = config.field_width, config.view_width
        self.groups = config.similarity_groups
        sampled = feature_channels + 3
        statistics = 2 * sampled + self.groups + 1 + context_channels
        self.view_input = nn.Linear(sampled + DIRECTION_CHANNELS + DEPTH_CHANNELS, narrow)
        # The linear layer on the statistics runs once per point, not once per view.
        self.shared_input = nn.Linear(statistics, narrow, bias=False)
        self.view_hidden = nn.Linear(narrow, narrow)
        # Softmax over the views cancels a bias.
        self.view_score = nn.Linear(narrow, 1, bias=False)
        self.point_encoder = mlp(narrow + statistics, width, width)
        self.ray_layers = nn.ModuleList(
            RayAttention(width, config.ray_heads) for _ in range(config.ray_layers)
        )
        self.density = nn.Linear(width, 1)
        # Zero bias makes a bin half opaque at the start of training.
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

        ``context`` are the cost volume's features; ``positions`` are normalised depths.
        """
        features, depth = working_precision(samples.features), samples.depth
        residuals = torch.stack([depth.residuals, depth.confidence, depth.visibility], -1)
        parts = [features, samples.colors, samples.directions, residuals]
        inputs = _joined(parts, features.dtype)
        statistics = self._statistics(features, samples, context)
        shared = _linear(self.shared_input, statistics)
        views = F.gelu(_linear(self.view_input, inputs) + shared[:, None])
        views = F.gelu(self.view_hidden(views))
        attention = masked_softmax(self.view_score(views)[..., 0], samples.valid)
        pooled = weighted_sum(attention[..., None], views)
        inward, *rest = self.point_encoder
        points = _linear(inward, torch.cat([pooled, statistics], -1))
        for layer in rest:
            points = layer(points)
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
        of_features = view_statistics(features, samples.valid)
        of_colors = view_statistics(samples.colors, samples.valid)
        count = of_features.count[..., None]
        parts = [
            *(of_features.mean, of_features.variance, of_colors.mean, of_colors.variance),
            *(of_features.similarity(self.groups), count / (1 + count), context),
        ]
        return _joined(parts, features.dtype)

    def _blend(
        self,
        points: Float[Tensor, "batch ray sample width"],
        views: Float[Tensor, "batch view ray sample view_width"],
        samples: SourceSamples,
    ) -> tuple[Float[Tensor, "batch ray sample c"], Float[Tensor, "batch ray sample feature"]]:
        """Return blended colours and features."""
        hidden = F.gelu(self.blend_view(views) + self.blend_point(points)[:, None])
        scores = self.blend_score(hidden)[..., 0].float()
        regressed = self.regressed(points).float()
        logits = torch.cat([scores, regressed[:, None, ..., -1]], 1)
        valid = torch.cat([samples.valid, torch.ones_like(samples.valid[:, :1])], 1)
        weights = masked_softmax(logits, valid)
        view_weights = weights[:, :-1, ..., None]
        blended = weighted_sum(view_weights, samples.pixel_colors.float())
        colors = blended + weights[:, -1, ..., None] * torch.sigmoid(regressed[..., :-1])
        features = working_precision(samples.features)
        pooled = weighted_sum(view_weights.to(features.dtype), features)
        return colors, self.feature(torch.cat([points.to(pooled.dtype), pooled], -1)).float()


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
        """Apply self-attention over the samples of each ray."""
        points = points + self.position(_fourier(positions).to(points.dtype))
        q, k, v = rearrange(
            self.qkv(self.norm1(points)), "b r s (k h c) -> k b r h s c", k=3, h=self.heads
        )
        mixed = rearrange(_attention(q, k, v), "b r h s c -> b r s (h c)")
        points = points + self.proj(mixed)
        return points + self.mlp(self.norm2(points))


def _attention(
    q: Float[Tensor, "*batch sample channel"],
    k: Float[Tensor, "*batch sample channel"],
    v: Float[Tensor, "*batch sample channel"],
) -> Float[Tensor, "*batch sample channel"]:
    """Return the attention of few samples.

    Not ``scaled_dot_product_attention``: its kernels are made for long sequences, but a ray has
    few samples, and there may be more rays than a kernel's grid has blocks.
    """
    scale = q.shape[-1] ** -0.5
    if not q.is_cuda or q.shape[-2] > FEW_SAMPLES:
        return torch.softmax(q @ k.transpose(-1, -2) * scale, -1).to(v.dtype) @ v
    # Element by element: a GPU runs matrix products of three rows slowly, and cannot fuse them.
    logits = (q[..., :, None, :] * k[..., None, :, :]).sum(-1) * scale
    weights = torch.softmax(logits, -1).to(v.dtype)
    return (weights[..., None] * v[..., None, :, :]).sum(-2).to(v.dtype)


def _joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Concatenate channels; on a GPU with zeros up to a multiple of 8, which products need."""
    parts = [part.to(dtype) for part in parts]
    missing = -sum(part.shape[-1] for part in parts) % 8 if parts[0].is_cuda else 0
    if missing:
        parts.append(parts[0].new_zeros(()).expand(*parts[0].shape[:-1], missing))
    return torch.cat(parts, -1)


def _linear(layer: nn.Module, inputs: Float[Tensor, "*batch channel"]) -> Tensor:
    """Apply a layer to inputs that may have more channels, of zeros, than the layer."""
    assert isinstance(layer, nn.Linear)
    missing = inputs.shape[-1] - layer.in_features
    weight = F.pad(layer.weight, (0, missing)) if missing else layer.weight
    return F.linear(inputs, weight, layer.bias)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Build a perceptron with one hidden layer."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


def masked_softmax(
    logits: Float[Tensor, "batch view ray sample"], valid: Bool[Tensor, "batch view ray sample"]
) -> Float[Tensor, "batch view ray sample"]:
    """Return softmax over the valid views of each point; zeros where there are none."""
    filled = logits.masked_fill(~valid, -1e4)
    return torch.softmax(filled, 1) * valid.to(logits.dtype)


def _fourier(positions: Float[Tensor, "*batch sample"]) -> Float[Tensor, "*batch sample channel"]:
    """Return the Fourier features of positions in [0, 1]."""
    octaves = torch.pi * 2.0 ** torch.arange(NUM_FREQUENCIES, device=positions.device)
    angles = positions[..., None] * octaves.to(positions.dtype)
    return torch.cat([angles.sin(), angles.cos()], -1)
