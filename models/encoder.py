"""Feature maps of the source views: VGGT tokens for context, a convolutional branch for detail."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float
from torch import Tensor, nn

from datasets.views import Views
from models.config import FEATURE_GROUP, NORM_GROUPS, FeaturePyramidConfig
from models.kernels.bilinear import channels_last
from models.kernels.triton_support import use_kernels


@dataclass(frozen=True)
class PyramidMaps:
    """Feature maps of every view, in single precision."""

    fine: Float[Tensor, "batch view channel map_height map_width"]
    """At half the size of the images, rounded up."""
    coarse: Float[Tensor, "batch view coarse_channel coarse_height coarse_width"]
    """At a quarter of the size."""


class FeaturePyramid(nn.Module):
    """Fuse the tokens of several VGGT layers with image features at 1/2, 1/4 and 1/8 size.

    Tokens, one per patch of the backbone's image, carry geometry and context but no detail. Each
    layer is normalised and projected, and the sum enters at 1/8 size. A top-down path adds the
    image features, as in feature pyramid networks (Lin et al. 2017). Without a backbone only image
    features are used.
    """

    def __init__(self, config: FeaturePyramidConfig, token_channels: int, num_layers: int) -> None:
        super().__init__()
        width = config.pyramid_width
        self.token_norms = nn.ModuleList(nn.LayerNorm(token_channels) for _ in range(num_layers))
        self.token_projections = nn.ModuleList(
            nn.Linear(token_channels, width) for _ in range(num_layers)
        )
        self.token_mixer = ResidualBlock(width) if num_layers else None
        self.stems = nn.ModuleList(
            [_downsample(3, width // 2), _downsample(width // 2, width), _downsample(width, width)]
        )
        self.laterals = nn.ModuleList([nn.Conv2d(width // 2, width, 1), nn.Conv2d(width, width, 1)])
        self.merges = nn.ModuleList([ResidualBlock(width) for _ in range(3)])
        self.output = nn.Conv2d(width, config.feature_channels, 3, padding=1)
        self.coarse_output = nn.Conv2d(width, config.coarse_channels, 3, padding=1)

    def forward(
        self,
        images: Float[Tensor, "batch view 3 height width"],
        tokens: tuple[Float[Tensor, "batch view token_channel rows columns"], ...],
    ) -> PyramidMaps:
        """Return fine and coarse feature maps of every view."""
        levels, x = [], images.flatten(0, 1) * 2 - 1
        for stem in self.stems:
            x = stem(x)
            levels.append(x)
        x = levels[2]
        if self.token_mixer is not None:
            x = x + _resize_like(self.token_mixer(self._fuse_tokens(tokens)), x)
        x = self.merges[2](x)
        middle = _resize_like(x, levels[1]) + self.laterals[1](levels[1])
        middle = self.merges[1](middle)
        x = _resize_like(middle, levels[0]) + self.laterals[0](levels[0])
        fine, coarse = self.output(self.merges[0](x)), self.coarse_output(middle)
        views = images.shape[:2]
        maps = (soft_normalize(x.float()).unflatten(0, views) for x in (fine, coarse))
        if use_kernels(images):
            maps = map(channels_last, maps)
        return PyramidMaps(*maps)

    def _fuse_tokens(
        self, tokens: tuple[Float[Tensor, "batch view token_channel rows columns"], ...]
    ) -> Float[Tensor, "n width rows columns"]:
        layers = zip(tokens, self.token_norms, self.token_projections, strict=True)
        fused = [
            project(norm(layer.flatten(0, 1).permute(0, 2, 3, 1)))
            for layer, norm, project in layers
        ]
        return torch.stack(fused).sum(0).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group normalisation and a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(NORM_GROUPS, width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(NORM_GROUPS, width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Float[Tensor, "n width h w"]) -> Float[Tensor, "n width h w"]:
        """Add the block's output to its input."""
        return x + self.body(x)


def soft_normalize(features: Float[Tensor, "n channel h w"]) -> Float[Tensor, "n channel h w"]:
    """Divide groups of channels by ``sqrt(1 + length^2)``.

    Dot products of the result approach cosines where there is texture and 0 where there is none.
    """
    grouped = features.unflatten(1, (-1, FEATURE_GROUP))
    length = (1 + grouped.square().sum(2, keepdim=True)).rsqrt()
    return (grouped * length).flatten(1, 2)


def fill_missing_views(views: Views, view_mask: Bool[Tensor, "batch view"]) -> Views:
    """Replace each masked-out view ``(batch, view)`` by its scene's first existing view.

    No features are read from the copies, but the backbone attends to them.
    """
    device, (scenes, count) = view_mask.device, view_mask.shape
    first = view_mask.to(torch.int8).argmax(1, keepdim=True)
    chosen = torch.where(view_mask, torch.arange(count, device=device), first)
    return views[torch.arange(scenes, device=device)[:, None], chosen]


def _downsample(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 5, stride=2, padding=2),
        nn.GroupNorm(NORM_GROUPS, outputs),
        nn.GELU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GELU(),
    )


def _resize_like(x: Float[Tensor, "n c h w"], other: Float[Tensor, "n d k l"]) -> Tensor:
    return F.interpolate(x, size=other.shape[-2:], mode="bilinear", align_corners=False)
