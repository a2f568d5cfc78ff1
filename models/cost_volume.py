"""What the sources say about the frustum of one target camera, on a coarse grid of rays.

The radiance field judges ray by ray. Here neighbouring rays are judged together, as in MuRF (Xu et
al. 2024), ENeRF (Lin et al. 2022) and GeFu (Liu et al. 2024): a coarse volume of the views' mutual
similarity and of the geometry prior, smoothed by a 3D network. It says where along each ray to
sample, and hands its context to the samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from models.aggregation import view_statistics, working_precision
from models.config import CostVolumeConfig
from models.projection import (
    DepthResiduals,
    ProjectedPoints,
    SceneFeatures,
    depth_residuals,
    project_to_sources,
    read_maps,
)
from models.ray_sampling import DepthPlanes
from models.volume_network import UNet3D
from utils.cameras import Cameras
from utils.rays import cell_grid, pixel_rays, view_grid

CELLS = 80
"""Rays of a target's volume along the longer side of an image of usual size."""
FINE_CELLS = 240
"""The same where it pays to look closely, once per source: up to four times the work."""
CELL_SIZES = (4.0, 8.0)
"""Least and most pixels between them, along each side: finer than that, the features have nothing
to say; coarser, things are lost."""
CUE_CHANNELS = 4
PLACE_CHANNELS = 2


@dataclass(frozen=True)
class CostVolume:
    """A target camera, and what the sources say about what it sees. One per scene of a batch."""

    cameras: Cameras
    """Batch axes ``(batch,)``."""
    size: tuple[int, int]
    """Height and width of the target image, which the volume covers."""
    planes: DepthPlanes
    weights: Float[Tensor, "batch plane row column"]
    """Share of a ray's light that comes from each plane; the rest comes from nowhere."""
    features: Float[Tensor, "batch channel plane row column"]

    def plane_weights(
        self, pixels: Float[Tensor, "batch ray 2"]
    ) -> Float[Tensor, "batch ray plane"]:
        """Interpolate the planes' weights at pixel positions."""
        grid = view_grid(pixels, self.size)[:, :, None]
        read = F.grid_sample(self.weights, grid, padding_mode="border", align_corners=False)
        return rearrange(read, "b p r 1 -> b r p")

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
    """Gather the sources' evidence in a target's frustum and smooth it."""

    def __init__(self, config: CostVolumeConfig, feature_channels: int) -> None:
        super().__init__()
        self.groups = config.volume_groups
        evidence = 2 * (feature_channels + 3) + self.groups
        self.network = UNet3D(
            evidence + CUE_CHANNELS + PLACE_CHANNELS,
            config.volume_widths,
            1 + config.volume_channels,
        )
        self.nothing = nn.Parameter(torch.full((1,), -2.0))

    def forward(
        self,
        scene: SceneFeatures,
        cameras: Cameras,
        planes: DepthPlanes,
        size: tuple[int, int],
        pad: float = 0.0,
        cells: int = CELLS,
    ) -> CostVolume:
        """Look at a scene from one target camera per scene.

        Args:
            scene: The encoded sources, one or more.
            cameras: Target cameras, ``(batch,)``.
            planes: Depths of the volume.
            size: Height and width of the target images.
            pad: As in ``sample_source_views``.
            cells: As in ``volume_grid``.
        """
        rows, columns = volume_grid(size, cells)
        pixels = cell_grid((rows, columns), size, planes.near_far.device)
        rays = pixel_rays(cameras, pixels)
        t = planes.centers()[:, None].expand(-1, len(pixels), -1)
        where = project_to_sources(scene, rays, t, pad)
        evidence = self._evidence(scene, where, planes)
        volume = rearrange(evidence, "b (h w) p c -> b c p h w", h=rows)
        out = self.network(volume).float()
        nothing = self.nothing.expand(len(out), 1, rows, columns)
        shares = torch.softmax(torch.cat([out[:, 0], nothing], 1), 1)
        return CostVolume(cameras, size, planes, shares[:, :-1], out[:, 1:])

    def _evidence(
        self, scene: SceneFeatures, where: ProjectedPoints, planes: DepthPlanes
    ) -> Float[Tensor, "batch ray plane channel"]:
        small = F.interpolate(
            scene.images.flatten(0, 1), scene.coarse_features.shape[-2:], mode="area"
        ).unflatten(0, scene.images.shape[:2])
        read = working_precision(read_maps(scene.coarse_features, where))
        features = view_statistics(read, where.valid)
        colors = view_statistics(read_maps(small, where), where.valid)
        similarity = features.similarity(self.groups)
        cues = pool_residuals(depth_residuals(scene.prior, where, planes), where.valid)
        reliability = scene.prior.reliability[:, None, None, None].expand_as(cues[..., :1])
        count = features.count[..., None]
        steps = (torch.arange(planes.count, device=count.device) + 0.5) / planes.count
        place = [count / (1 + count), steps[:, None].expand_as(count)]
        seen = [part for x in (features, colors) for part in (x.mean, x.variance)]
        parts = [*seen, similarity, cues, reliability, *place]
        return torch.cat([part.to(read.dtype) for part in parts], -1)


def volume_grid(size: tuple[int, int], cells: int = CELLS) -> tuple[int, int]:
    """Return rows and columns of the volume's rays for an image of (height, width).

    Args:
        size: Of the image.
        cells: Rays along the longer side, as far as ``CELL_SIZES`` permit.
    """
    least, most = CELL_SIZES
    cell = min(max(max(size) / cells, least), most)
    return math.ceil(size[0] / cell), math.ceil(size[1] / cell)


def pool_residuals(
    cues: DepthResiduals, valid: Float[Tensor, "batch view ray plane"] | Tensor
) -> Float[Tensor, "batch ray plane 3"]:
    """Pool the views' residuals: trusted mean, nearest surface, mean trust.

    The second is 0 where a fully trusted surface is and 1 where no view has one.
    """
    trust = cues.trust * valid
    count = valid.sum(1).clamp_min(1)
    mean = (trust * cues.residuals).sum(1) / count
    nearest = (1 - trust * (1 - cues.residuals.abs())).amin(1)
    return torch.stack([mean, nearest, trust.sum(1) / count], -1)
