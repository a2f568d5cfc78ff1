"""Feature maps of the source views: VGGT tokens for context, a convolutional branch for detail."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float
from torch import Tensor, nn

from datasets.views import Views
from models.config import FEATURE_GROUP, NORM_GROUPS, FeaturePyramidConfig


@dataclass(frozen=True)
class PyramidMaps:
    """Feature maps of every view, in single precision: sampling needs exact positions."""

    fine: Float[Tensor, "batch view channel map_height map_width"]
    """At half the size of the images (rounded up)."""
    coarse: Float[Tensor, "batch view coarse_channel coarse_height coarse_width"]
    """At a quarter of their size."""


class FeaturePyramid(nn.Module):
    """Fuse the tokens of several VGGT layers with image features at 1/2, 1/4 and 1/8 size.

    Tokens come at 1/14 of the backbone's resolution: they carry geometry and context, not detail.
    Each layer is normalised and projected, their sum enters at 1/8 size, and a top-down path adds
    the image branch back, as in feature pyramid networks (Lin et al. 2017). Without a backbone
    there are no tokens, and the image branch is alone.
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
        """Return the maps that ray samples read and those that the cost volume reads."""
        levels = self._image_levels(images.flatten(0, 1))
        x = levels[2]
        if self.token_mixer is not None:
            x = x + _resize_like(self.token_mixer(self._fuse_tokens(tokens)), x)
        x = self.merges[2](x)
        middle = _resize_like(x, levels[1]) + self.laterals[1](levels[1])
        middle = self.merges[1](middle)
        x = _resize_like(middle, levels[0]) + self.laterals[0](levels[0])
        fine, coarse = self.output(self.merges[0](x)), self.coarse_output(middle)
        views = images.shape[:2]
        return PyramidMaps(
            bounded(fine.float()).unflatten(0, views), bounded(coarse.float()).unflatten(0, views)
        )

    def _image_levels(self, images: Float[Tensor, "n 3 h w"]) -> list[Tensor]:
        levels, x = [], images * 2 - 1
        for stem in self.stems:
            x = stem(x)
            levels.append(x)
        return levels

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


def bounded(features: Float[Tensor, "n channel h w"]) -> Float[Tensor, "n channel h w"]:
    """Scale groups of channels to less than unit length; short ones hardly change.

    Products of such features are cosines where there is texture and small where there is none.
    Done once per map, it saves a normalisation at every point of every ray.
    """
    grouped = features.unflatten(1, (-1, FEATURE_GROUP))
    length = (1 + grouped.square().sum(2, keepdim=True)).rsqrt()
    return (grouped * length).flatten(1, 2)


def fill_missing_views(views: Views, view_mask: Bool[Tensor, "batch view"]) -> Views:
    """Replace each masked-out view ``(batch, view)`` by its scene's first view.

    Nothing is read from there, but the backbone attends over all views: it meets a photograph that
    it already knows.
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
