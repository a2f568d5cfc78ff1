"""The point regression: density and colour of single points from projected features.

A baseline without a ray integral in its loss; ``docs/lessons.md`` measures why it fails.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from datasets.views import Views
from models.baselines.config import BaselineConfig
from models.baselines.ray_casting import RayCaster, sample_depths
from models.config import FeaturePyramidConfig
from models.encoder import FeaturePyramid
from models.novel_view import encoding
from models.projection import view_statistics
from models.ray_sampling import DepthPlanes
from models.vggt.backbone import Backbone
from models.volume_rendering import Composite, alphas, composite_weights, transmittance
from utils.cameras import Cameras, Rays, project, view_grid


@dataclass(frozen=True)
class PointScene:
    """Source views and their features."""

    maps: Float[Tensor, "batch view channel height width"]
    """Features, then RGB."""
    cameras: Cameras
    """Batch axes ``(batch, view)``."""
    size: tuple[int, int]
    """Height and width of the images."""


class PointRegression(RayCaster[PointScene]):
    """Mean and variance of the views' features at a point -> MLP -> optical depth and colour."""

    def __init__(
        self, config: BaselineConfig, pyramid: FeaturePyramidConfig, backbone: Backbone
    ) -> None:
        super().__init__(config)
        self.backbone = backbone
        self.pyramid = FeaturePyramid(pyramid, backbone.token_channels, backbone.num_layers)
        # The coarse maps are for a cost volume, which this model does not have.
        self.pyramid.coarse_output.requires_grad_(False)
        width, inputs = config.point_width, 2 * (pyramid.feature_channels + 3) + 1
        self.field = nn.Sequential(
            *(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
            *(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)),
        )

    @property
    def fingerprint(self) -> str:
        """Identify everything that affects renderings apart from ``state_dict``."""
        return repr(("point_regression", self.config, self.backbone.fingerprint))

    def encode(self, sources: Views, near_far: Float[Tensor, "batch 2"]) -> PointScene:
        """Compute feature maps of source views ``(batch, view)``."""
        with encoding(sources, self.training):
            tokens = self.backbone(sources.images, heads=()).tokens
            fine = self.pyramid(sources.images, tokens).fine
        images = F.interpolate(
            sources.images.flatten(0, 1), fine.shape[-2:], mode="bilinear", antialias=True
        )
        maps = torch.cat([fine, images.unflatten(0, fine.shape[:2])], 2)
        return PointScene(maps, sources.cameras, sources.size)

    def query(
        self, scene: PointScene, points: Float[Tensor, "batch point 3"]
    ) -> tuple[Float[Tensor, "batch point"], Float[Tensor, "batch point 3"]]:
        """Return a logit and a colour for each world point.

        Softplus of the logit is the optical depth of one sample of a ray.
        """
        pixels, depths = project(points[:, None], scene.cameras)
        grid = view_grid(pixels, scene.size)
        seen = (grid.abs() <= 1).all(-1) & (depths > 0)
        grid = torch.where(seen[..., None], grid, 0).flatten(0, 1)[:, None]
        values = F.grid_sample(scene.maps.flatten(0, 1), grid, align_corners=False)
        values = rearrange(values, "(b v) c 1 p -> b v p 1 c", b=len(points))
        statistics = view_statistics(values, seen[..., None])
        share = statistics.count[..., None] / seen.shape[1]
        inputs = torch.cat([statistics.mean, statistics.variance, share], -1)[:, :, 0]
        raw = self.field(inputs).float()
        return raw[..., 0], raw[..., 1:].sigmoid()

    def render_rays(
        self,
        scene: PointScene,
        rays: Rays,
        near_far: Float[Tensor, "batch 2"],
        generator: torch.Generator | None = None,
    ) -> Composite:
        """Render rays ``(batch, ray)``; a generator moves the samples at random."""
        planes = DepthPlanes(near_far, self.config.ray_samples, self.config.ray_lindisp)
        t = sample_depths(planes, rays.origins.shape[1], generator)
        logits, colors = self.query(scene, rays.at(t).flatten(1, 2))
        depths = F.softplus(logits).view_as(t)
        weights = alphas(depths) * transmittance(depths)
        return composite_weights(weights, colors.unflatten(1, t.shape[1:]), t, near_far[:, 1:])
