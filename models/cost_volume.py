"""The cost volume: agreement of the source views in the frustum of a target camera.

The radiance field judges one ray at a time. Here neighbouring rays are judged together, as in MuRF
(Xu et al. 2024), ENeRF (Lin et al. 2022) and GeFu (Liu et al. 2024): the views' mutual similarity
and the depth prior on a coarse grid of rays, smoothed by a 3D U-Net. The result says where along
each ray the second level places its bins, and gives context to them.
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

from models.config import CostVolumeConfig
from models.convolution import Conv3d
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
from models.ray_sampling import DepthPlanes, RayBins
from models.volume_rendering import Composite, composite_weights
from utils.cameras import Cameras, Rays, cell_grid, pixel_rays, view_grid

CELLS = 80
"""Rays of a target's volume along the longer side of an image of usual size."""
CELL_SIZES = (4.0, 8.0)
"""Fewest and most pixels between rays: finer, features hold no more; coarser, objects are lost."""
DEPTH_CHANNELS = 4
CPU_POINTS = 16384
"""Most points that a CPU judges at once: more take longer, since they leave its cache."""


@dataclass(frozen=True)
class MatchingMaps:
    """What the views are compared by."""

    features: Float[Tensor, "batch view channel map_height map_width"]
    colors: Float[Tensor, "batch view 3 map_height map_width"]


@dataclass(frozen=True)
class CostVolume:
    """A target camera and its cost volume. One per scene of a batch."""

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
        """Return what the volume says of the rays through pixels, but for its features."""
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
    """Compute the matching costs in a target's frustum and smooth them."""

    def __init__(self, config: CostVolumeConfig, feature_channels: int) -> None:
        super().__init__()
        self.groups = config.volume_groups
        inputs = cost_channels(feature_channels, self.groups) + 1
        self.points = PointCosts(inputs, config.volume_widths[0])
        self.network = UNet3D(config.volume_widths, 1 + config.volume_channels)
        self.nothing = nn.Parameter(torch.full((1,), -2.0))
        """Logit of the background, beside those of the planes."""

    def forward(
        self,
        scene: SceneFeatures,
        cameras: Cameras,
        planes: DepthPlanes,
        size: tuple[int, int],
        pad: float = 0.0,
    ) -> CostVolume:
        """Build the volume of one target camera ``(batch,)`` per scene; ``size`` is its image's."""
        rows, columns = volume_grid(size)
        pixels = cell_grid((rows, columns), size, planes.near_far.device)
        rays = pixel_rays(cameras, pixels)
        t = planes.centers()[:, None].expand(-1, len(pixels), -1)
        maps = matching_maps(scene, scene.coarse_features)

        def judge(some: slice) -> Tensor:
            projected = project_to_sources(scene, rays.part(some), t[:, some], pad)
            costs = matching_costs(scene, maps, projected, planes, self.groups)
            return self.points(torch.cat([costs, _positions(planes, costs)], -1))

        judged = by_parts(judge, t)
        out = self.network(rearrange(judged, "b (h w) p c -> b c p h w", h=rows)).float()
        background = self.nothing.expand(len(out), 1, rows, columns)
        weights = torch.softmax(torch.cat([out[:, 0], background], 1), 1)
        return CostVolume(cameras, size, planes, weights[:, :-1], out[:, 1:])


def _positions(
    planes: DepthPlanes, costs: Float[Tensor, "batch ray plane cost"]
) -> Float[Tensor, "batch ray plane 1"]:
    """Return where each plane lies in the range."""
    steps = (torch.arange(planes.count, device=costs.device) + 0.5) / planes.count
    return steps[:, None].expand(*costs.shape[:3], 1).to(costs.dtype)


def by_parts(
    function: Callable[[slice], Float[Tensor, "batch part sample channel"]],
    t: Float[Tensor, "batch ray sample"],
) -> Float[Tensor, "batch ray sample channel"]:
    """Apply a function of some of the rays to all: on a CPU to parts that its cache holds."""
    rays = t.shape[1]
    step = max(CPU_POINTS // t.shape[2], 1) if t.device.type == "cpu" else rays
    return torch.cat([function(slice(start, start + step)) for start in range(0, rays, step)], 1)


def matching_maps(
    scene: SceneFeatures, features: Float[Tensor, "batch view channel map_height map_width"]
) -> MatchingMaps:
    """Add colours to a map of features, at its size."""
    small = F.interpolate(scene.images.flatten(0, 1), features.shape[-2:], mode="area")
    return MatchingMaps(features, small.unflatten(0, scene.images.shape[:2]))


def matching_costs(
    scene: SceneFeatures,
    maps: MatchingMaps,
    projected: ProjectedPoints,
    planes: DepthPlanes,
    groups: int,
) -> Float[Tensor, "batch ray sample cost"]:
    """Return what tells whether ray points lie on a surface: ``cost_channels`` of them.

    Mean and variance over the views of features and of colours; similarity; the depth prior; how
    many views see a point.
    """
    read = working_precision(read_maps(maps.features, projected))
    features = view_statistics(read, projected.valid)
    colors = view_statistics(read_maps(maps.colors, projected), projected.valid)
    similarity = features.similarity(groups)
    depth = pool_residuals(depth_residuals(scene.prior, projected, planes), projected.valid)
    reliability = scene.prior.reliability[:, None, None, None].expand_as(depth[..., :1])
    count = features.count[..., None]
    seen = [part for x in (features, colors) for part in (x.mean, x.variance)]
    parts = [*seen, similarity, depth, reliability, count / (1 + count)]
    return torch.cat([part.to(read.dtype) for part in parts], -1)


def cost_channels(feature_channels: int, groups: int) -> int:
    """Return the number of ``matching_costs``."""
    return 2 * (feature_channels + 3) + groups + DEPTH_CHANNELS + 1


class PointCosts(nn.Module):
    """Judge the costs of every point on its own: a linear layer, and a perceptron beside it."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.inward = nn.Linear(inputs, 3 * width)
        self.outward = nn.Linear(2 * width, width)

    def forward(
        self, costs: Float[Tensor, "batch ray plane cost"]
    ) -> Float[Tensor, "batch ray plane width"]:
        """Return what a 3D network goes on with."""
        linear, hidden = self.inward(costs).tensor_split([self.width], -1)
        return linear + self.outward(F.gelu(hidden))


class UNet3D(nn.Module):
    """Smooth a volume over several resolutions (Ronneberger et al. 2015, in three dimensions)."""

    def __init__(self, widths: tuple[int, ...], outputs: int, normalised: bool = True) -> None:
        """Build the network; ``widths`` are channels at full size (the input's too), half ...

        Normalised layers see the whole volume; others give the same for a part of it.
        """
        super().__init__()

        def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
            layers: list[nn.Module] = [
                Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=not normalised)
            ]
            if normalised:
                layers.append(nn.GroupNorm(4, outputs))
            return nn.Sequential(*layers, nn.GELU())

        self.first = block(widths[0], widths[0])
        steps = list(zip(widths[:-1], widths[1:], strict=True))
        self.down = nn.ModuleList(
            nn.Sequential(block(fine, coarse, stride=2), block(coarse, coarse))
            for fine, coarse in steps
        )
        self.up = nn.ModuleList(Conv3d(coarse, fine, 1) for fine, coarse in steps)
        self.merge = nn.ModuleList(block(fine, fine) for fine, _ in steps)
        self.outward = Conv3d(widths[0], outputs, 3, padding=1)

    def forward(
        self, volume: Float[Tensor, "batch channel plane row column"]
    ) -> Float[Tensor, "batch output plane row column"]:
        """Return a volume of the same size."""
        levels = [self.first(volume)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            skip = levels.pop()
            x = merge(skip + F.interpolate(up(x), size=skip.shape[-3:], mode="nearest"))
        return self.outward(x)


def volume_grid(size: tuple[int, int]) -> tuple[int, int]:
    """Return the grid of rays: ``CELLS`` on the longer side, as far as ``CELL_SIZES`` permit."""
    least, most = CELL_SIZES
    cell = min(max(max(size) / CELLS, least), most)
    return math.ceil(size[0] / cell), math.ceil(size[1] / cell)


def pool_residuals(
    depth: DepthResiduals, valid: Bool[Tensor, "batch view ray plane"]
) -> Float[Tensor, "batch ray plane 3"]:
    """Pool the views' residuals: confident mean, nearest surface, mean confidence.

    The second is 0 on a fully confident surface and 1 where no view has one.
    """
    confidence = depth.confidence * valid
    count = valid.sum(1).clamp_min(1)
    mean = (confidence * depth.residuals).sum(1) / count
    nearest = (1 - confidence * (1 - depth.residuals.abs())).amin(1)
    return torch.stack([mean, nearest, confidence.sum(1) / count], -1)


def composite_bins(
    scene: SceneFeatures,
    rays: Rays,
    t: Float[Tensor, "batch ray sample"],
    weights: Float[Tensor, "batch ray sample"],
    far: Float[Tensor, "batch 1"],
    background: float = 0.0,
) -> Composite:
    """Render points of rays, at z-depths ``t``, with the mean source colour at each.

    This trains the volume. Colours are read at full resolution, so that a sharp image rewards the
    right depth.
    """
    projected = project_to_sources(scene, rays, t, pad=0.0)
    colors = view_statistics(read_maps(scene.images, projected), projected.valid).mean
    # Where no view sees a point, the scene's average colour is the best guess.
    average = _average_color(scene)[:, None, None]
    colors = torch.where(projected.valid.any(1)[..., None], colors, average)
    return composite_weights(weights, colors, t, far, background)


def _average_color(scene: SceneFeatures) -> Float[Tensor, "batch 3"]:
    images = scene.images.float()
    if scene.view_mask is None:
        return images.mean((1, 3, 4))
    shares = scene.view_mask / scene.view_mask.sum(1, keepdim=True)
    return (images.mean((3, 4)) * shares[..., None]).sum(1)
