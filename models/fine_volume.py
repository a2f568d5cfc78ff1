"""The cost volume's second level: few bins for every bundle, around what the first level finds.

As in ENeRF (Lin et al. 2022) and MVSGaussian (Liu et al. 2024), where the second level has 8 planes
at half the images' size.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from models.config import CostVolumeConfig, RenderConfig
from models.cost_volume import (
    CostVolume,
    PointCosts,
    UNet3D,
    by_parts,
    cost_channels,
    matching_costs,
    matching_maps,
)
from models.projection import SceneFeatures, project_to_sources
from models.ray_sampling import DepthPlanes, RayBins, importance_bins
from models.window import Window
from utils.cameras import pixel_rays

BIN_CHANNELS = 2


class FineVolumeNet(nn.Module):
    """Judge bins of equal mass under the first level, together with those of neighbouring rays."""

    def __init__(self, config: CostVolumeConfig, feature_channels: int, groups: int) -> None:
        super().__init__()
        self.count, self.groups = config.fine_planes, groups
        inputs = cost_channels(feature_channels, groups) + config.volume_channels + BIN_CHANNELS
        self.points = PointCosts(inputs, config.fine_widths[0])
        # A window has to give what the whole image gives.
        self.network = UNet3D(config.fine_widths, 1 + config.volume_channels, normalised=False)
        self.nothing = nn.Parameter(torch.full((1,), -2.0))
        """Logit of the background, beside those of the bins."""

    def forward(
        self,
        scene: SceneFeatures,
        volume: CostVolume,
        first: RayBins,
        window: Window,
        settings: RenderConfig,
        generator: torch.Generator | None = None,
    ) -> RayBins:
        """Return bins for the middle of every bundle; a generator moves them at random.

        ``first`` is what the volume says of these rays.
        """
        pixels, planes = window.centers(), volume.planes
        edges, t = importance_bins(
            *(first.t_edges, first.weights, self.count, settings.sampling_floor, generator),
            spread=settings.sampling_spread,
        )
        rays = pixel_rays(volume.cameras, pixels)
        maps = matching_maps(scene, scene.features)

        def judge(some: slice) -> Tensor:
            projected = project_to_sources(scene, rays.part(some), t[:, some], settings.pad)
            costs = matching_costs(scene, maps, projected, planes, self.groups)
            context = volume.read_features(pixels[:, some], t[:, some])
            parts = [costs, context, bin_positions(edges[:, some], t[:, some], planes)]
            return self.points(torch.cat([part.to(costs.dtype) for part in parts], -1))

        judged = by_parts(judge, t)
        rows = window.shape[0]
        out = self.network(rearrange(judged, "b (h w) p c -> b c p h w", h=rows)).float()
        logits, features = out[:, 0], out[:, 1:]
        background = self.nothing.expand(len(out), 1, *window.shape)
        found = torch.softmax(torch.cat([logits, background], 1), 1)[:, :-1]
        return RayBins(
            edges,
            t,
            rearrange(found, "b p h w -> b (h w) p"),
            rearrange(features, "b c p h w -> b (h w) p c"),
        )


def bin_positions(
    edges: Float[Tensor, "batch ray edge"],
    t: Float[Tensor, "batch ray sample"],
    planes: DepthPlanes,
) -> Float[Tensor, "batch ray sample 2"]:
    """Return where bins lie in the range, and the logarithm of their width in planes."""
    width = planes.coordinates(edges).diff(dim=-1) * planes.count
    return torch.stack([planes.coordinates(t), (width.clamp_min(0) + 0.01).log2() / 4], -1)
