"""Cost volumes: how well the source views agree in the frustum of a target camera, on two levels.

The radiance field sees one ray at a time. A cost volume compares neighbouring rays, as in MuRF (Xu
et al. 2024), ENeRF (Lin et al. 2022) and GeFu (Liu et al. 2024): a 3D U-Net smooths the views'
mutual similarity and the depth prior. The first level covers the depth range on a coarse grid of
rays. The second level places a few bins per bundle where the first has weight, as in ENeRF and
MVSGaussian (Liu et al. 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.bundles import Window
from models.config import CostVolumeConfig, RenderConfig
from models.kernels.point_costs import embed_points
from models.kernels.triton_support import MIN_SIZE, use_kernels
from models.projection import (
    DepthResiduals,
    ProjectedPoints,
    SceneFeatures,
    depth_residuals,
    project_to_sources,
    read_maps,
    view_statistics,
    working_precision,
)
from models.ray_sampling import BIN_CHANNELS, DepthPlanes, RayBins, bin_positions, importance_bins
from models.unet3d import UNet3D
from utils.cameras import Cameras, Rays, cell_grid, pixel_rays, view_grid

CELLS = 80
"""Rays of the first level along the longer side of an image, within ``CELL_SIZES``."""
CELL_SIZES = (4.0, 8.0)
"""Minimum and maximum pixels between rays: the features' resolution, and the size of objects."""
DEPTH_CHANNELS = 4
CPU_POINTS = 16384
"""Maximum points processed at once on a CPU, so that they stay in its cache."""


@dataclass(frozen=True)
class CostVolume:
    """The first level of one target camera per scene of a batch."""

    cameras: Cameras
    """Batch axes ``(batch,)``."""
    size: tuple[int, int]
    """Height and width of the target image, which the volume covers."""
    planes: DepthPlanes
    weights: Float[Tensor, "batch plane row column"]
    """Rendering weight of each plane; 1 - sum is background."""
    features: Float[Tensor, "batch channel plane row column"]

    def plane_weights(
        self, pixels: Float[Tensor, "batch ray 2"]
    ) -> Float[Tensor, "batch ray plane"]:
        """Interpolate the planes' weights at pixel positions."""
        grid = view_grid(pixels, self.size)[:, :, None]
        read = F.grid_sample(self.weights, grid, padding_mode="border", align_corners=False)
        return rearrange(read, "b p r 1 -> b r p")

    def ray_bins(self, pixels: Float[Tensor, "batch ray 2"]) -> RayBins:
        """Return the bins of rays through pixel positions, without features."""
        weights = self.plane_weights(pixels)
        t = self.planes.centers()[:, None].expand_as(weights)
        edges = self.planes.edges()[:, None].expand(-1, weights.shape[1], -1)
        return RayBins(edges, t, weights, features=t[..., None][..., :0])

    def read_features(
        self, pixels: Float[Tensor, "batch ray 2"], t: Float[Tensor, "batch ray sample"]
    ) -> Float[Tensor, "batch ray sample channel"]:
        """Interpolate the features at z-depths ``t`` along the rays through pixels."""
        across = view_grid(pixels, self.size)[:, :, None].expand(-1, -1, t.shape[-1], -1)
        along = self.planes.coordinates(t)[..., None] * 2 - 1
        grid = torch.cat([across, along], -1)[:, None]
        read = F.grid_sample(self.features, grid, padding_mode="border", align_corners=False)
        return rearrange(read, "b c 1 r s -> b r s c")


class CostVolumeNet(nn.Module):
    """The first level: matching costs on depth planes, smoothed by a 3D U-Net."""

    def __init__(self, config: CostVolumeConfig, feature_channels: int) -> None:
        super().__init__()
        widths = (feature_channels, 1, config.volume_widths[0])
        self.points = PointCosts(*widths, config.volume_groups)
        self.network = UNet3D(config.volume_widths, 1 + config.volume_channels)
        self.nothing = nn.Parameter(torch.full((1,), -2.0))
        """Logit of the background in the softmax over the planes."""

    def forward(
        self,
        scene: SceneFeatures,
        cameras: Cameras,
        planes: DepthPlanes,
        size: tuple[int, int],
        pad: float = 0.0,
    ) -> CostVolume:
        """Build the volume of one target camera ``(batch,)`` per scene, of image ``size``."""
        rows, columns = volume_grid(size)
        pixels = cell_grid((rows, columns), size, planes.near_far.device)
        rays = pixel_rays(cameras, pixels)
        t = planes.centers()[:, None].expand(-1, len(pixels), -1)
        steps = (torch.arange(planes.count, device=t.device) + 0.5) / planes.count

        def positions(chunk: slice) -> Tensor:
            return steps[:, None].expand(*t[:, chunk].shape, 1)

        costs = self.points(scene, scene.coarse_features, rays, t, positions, planes, pad)
        out = self.network(rearrange(costs, "b p (h w) c -> b c p h w", h=rows)).float()
        weights = softmax_with_background(out[:, 0], self.nothing)
        return CostVolume(cameras, size, planes, weights, out[:, 1:])


class FineVolumeNet(nn.Module):
    """The second level: matching costs in bins of equal weight under the first, smoothed alike."""

    def __init__(self, config: CostVolumeConfig, feature_channels: int, groups: int) -> None:
        super().__init__()
        self.count = config.fine_planes
        context = config.volume_channels + BIN_CHANNELS
        self.points = PointCosts(feature_channels, context, config.fine_widths[0], groups)
        # Not normalised: a window must give the same result as the whole image.
        self.network = UNet3D(config.fine_widths, 1 + config.volume_channels, normalised=False)
        self.nothing = nn.Parameter(torch.full((1,), -2.0))
        """Logit of the background in the softmax over the bins."""

    def forward(
        self,
        scene: SceneFeatures,
        volume: CostVolume,
        first: RayBins,
        window: Window,
        settings: RenderConfig,
        generator: torch.Generator | None = None,
    ) -> RayBins:
        """Return bins for the centre ray of every bundle; a generator moves them at random.

        ``first`` are the first level's bins of these rays.
        """
        pixels, planes = window.centers(), volume.planes
        edges, t = importance_bins(
            *(first.t_edges, first.weights, self.count, settings.sampling_floor, generator),
            spread=settings.sampling_spread,
        )
        rays = pixel_rays(volume.cameras, pixels)

        def context(chunk: slice) -> Tensor:
            coarse = volume.read_features(pixels[:, chunk], t[:, chunk])
            return torch.cat([coarse, bin_positions(edges[:, chunk], t[:, chunk], planes)], -1)

        costs = self.points(scene, scene.features, rays, t, context, planes, settings.pad)
        rows = window.shape[0]
        out = self.network(rearrange(costs, "b p (h w) c -> b c p h w", h=rows)).float()
        weights = softmax_with_background(out[:, 0], self.nothing)
        return RayBins(
            edges,
            t,
            rearrange(weights, "b p h w -> b (h w) p"),
            rearrange(out[:, 1:], "b c p h w -> b (h w) p c"),
        )


class PointCosts(nn.Module):
    """Embeds the matching costs of each point: the sum of a linear layer and a perceptron."""

    def __init__(self, feature_channels: int, context: int, width: int, groups: int) -> None:
        """Build the layers; ``context`` channels are given beside the costs."""
        super().__init__()
        self.width, self.groups, self.context = width, groups, context
        self.inward = nn.Linear(cost_channels(feature_channels, groups) + context, 3 * width)
        self.outward = nn.Linear(2 * width, width)

    def forward(
        self,
        scene: SceneFeatures,
        features: Float[Tensor, "batch view channel map_height map_width"],
        rays: Rays,
        t: Float[Tensor, "batch ray plane"],
        context: Callable[[slice], Float[Tensor, "batch chunk plane context"]],
        planes: DepthPlanes,
        pad: float,
    ) -> Float[Tensor, "batch plane ray width"]:
        """Return the input of a 3D network for points at z-depths ``t`` of rays."""
        colors = colors_at_size_of(features, scene)
        if use_kernels(t, features.shape[2], self.width) and self.context <= MIN_SIZE:
            layers = (self.inward, self.outward)
            points = (rays, t, context(slice(None)), planes, pad)
            return embed_points(layers, self.groups, scene, features, colors, *points)

        def embed(chunk: slice) -> Tensor:
            projected = project_to_sources(scene, rays.part(chunk), t[:, chunk], pad)
            costs = matching_costs(scene, features, colors, projected, planes, self.groups)
            costs = torch.cat([costs, context(chunk).to(costs.dtype)], -1)
            linear, hidden = self.inward(costs).tensor_split([self.width], -1)
            return linear + self.outward(F.gelu(hidden))

        return map_ray_chunks(embed, t).transpose(1, 2)


def softmax_with_background(
    logits: Float[Tensor, "batch plane row column"], background: Float[Tensor, " 1"]
) -> Float[Tensor, "batch plane row column"]:
    """Return softmax over planes and a constant background, without the background's share."""
    batch, _, rows, columns = logits.shape
    background = background.expand(batch, 1, rows, columns)
    return torch.softmax(torch.cat([logits, background], 1), 1)[:, :-1]


def map_ray_chunks(
    function: Callable[[slice], Float[Tensor, "batch chunk sample channel"]],
    t: Float[Tensor, "batch ray sample"],
) -> Float[Tensor, "batch ray sample channel"]:
    """Apply a function to slices of the rays: at most ``CPU_POINTS`` samples each on a CPU."""
    rays = t.shape[1]
    step = max(CPU_POINTS // t.shape[2], 1) if t.device.type == "cpu" else rays
    return torch.cat([function(slice(start, start + step)) for start in range(0, rays, step)], 1)


def colors_at_size_of(
    maps: Float[Tensor, "batch view channel map_height map_width"], scene: SceneFeatures
) -> Float[Tensor, "batch view 3 map_height map_width"]:
    """Resize the source images to the size of feature maps."""
    small = F.interpolate(scene.images.flatten(0, 1), maps.shape[-2:], mode="area")
    return small.unflatten(0, scene.images.shape[:2])


def matching_costs(
    scene: SceneFeatures,
    features: Float[Tensor, "batch view channel map_height map_width"],
    colors: Float[Tensor, "batch view 3 map_height map_width"],
    projected: ProjectedPoints,
    planes: DepthPlanes,
    groups: int,
) -> Float[Tensor, "batch ray sample cost"]:
    """Return evidence of a surface at ray points, in ``cost_channels`` channels.

    Mean and variance over the views of features and colours; similarity of ``groups`` of channels;
    residuals to the depth prior; the number of views that see the point.
    """
    read = working_precision(read_maps(features, projected))
    of_features = view_statistics(read, projected.valid)
    of_colors = view_statistics(read_maps(colors, projected), projected.valid)
    depth = pool_residuals(depth_residuals(scene.prior, projected, planes), projected.valid)
    reliability = scene.prior.reliability[:, None, None, None].expand_as(depth[..., :1])
    count = of_features.count[..., None]
    parts = [
        *(of_features.mean, of_features.variance, of_colors.mean, of_colors.variance),
        *(of_features.similarity(groups), depth, reliability, count / (1 + count)),
    ]
    return torch.cat([part.to(read.dtype) for part in parts], -1)


def cost_channels(feature_channels: int, groups: int) -> int:
    """Return the number of channels of ``matching_costs``."""
    return 2 * (feature_channels + 3) + groups + DEPTH_CHANNELS + 1


def volume_grid(size: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of the first level's rays for an image of (height, width)."""
    minimum, maximum = CELL_SIZES
    cell = min(max(max(size) / CELLS, minimum), maximum)
    return math.ceil(size[0] / cell), math.ceil(size[1] / cell)


def pool_residuals(
    depth: DepthResiduals, valid: Bool[Tensor, "batch view ray plane"]
) -> Float[Tensor, "batch ray plane 3"]:
    """Pool the views' residuals: mean weighted by confidence, distance, mean confidence.

    The distance is to the nearest surface of any view: 0 on a fully confident surface, 1 where no
    view has one.
    """
    confidence = depth.confidence * valid
    count = valid.sum(1).clamp_min(1)
    mean = (confidence * depth.residuals).sum(1) / count
    nearest = (1 - confidence * (1 - depth.residuals.abs())).amin(1)
    return torch.stack([mean, nearest, confidence.sum(1) / count], -1)
