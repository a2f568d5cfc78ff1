"""From rays and what the sources say to what the rays see: sample, ask the field, composite."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.coarse_pass import coarse_composite
from models.config import RenderConfig
from models.cost_volume import CostVolume
from models.projection import SceneFeatures, sample_source_views
from models.radiance_field import RadianceField
from models.ray_sampling import bin_centers, importance_edges
from models.volume_rendering import Composite, composite
from utils.rays import pixel_rays

DENSITY_SCALE = 128.0
"""Density that a field output of 1 stands for, per unit of ``DepthPlanes``' coordinate.

It makes the model independent of the scene's unit, puts surfaces (opaque within a hundredth of the
range) within easy reach of the field's output, and makes far surfaces of unbounded scenes as thick
as they are coarsely sampled.
"""


@dataclass(frozen=True)
class Rendering:
    """Rays as the field sees them and, if asked for, as the coarse volume does."""

    fine: Composite
    t_edges: Float[Tensor, "*batch ray edge"]
    """Borders of the fine bins, from 0 at near to 1 at far."""
    plane_weights: Float[Tensor, "*batch ray plane"]
    """Of the cost volume: where samples were drawn."""
    coarse: Composite | None = None


@dataclass(frozen=True)
class RayRenderer:
    """A radiance field, and how it is to be sampled."""

    field: RadianceField
    settings: RenderConfig

    def render(
        self,
        scene: SceneFeatures,
        target: CostVolume,
        pixels: Float[Tensor, "batch ray 2"],
        generator: torch.Generator | None = None,
        with_coarse: bool = False,
    ) -> Rendering:
        """Do what ``VGGTNeRF.render`` says.

        A function of its arguments alone, so that ``torch.compile`` can turn it into one graph:
        eagerly, most of its time goes into writing and reading what lies between two operations.
        """
        rays, background = pixel_rays(target.cameras, pixels), self.settings.background
        weights = target.plane_weights(pixels)
        edges = self._edges(target, weights, generator)
        coarse = None
        if with_coarse:
            coarse = coarse_composite(scene, target, rays, weights, background)
        t = bin_centers(edges)
        observations = sample_source_views(scene, rays, t, target.planes, self.settings.pad)
        context = target.read_features(pixels, t)
        densities, colors = self.field(observations, context, target.planes.coordinates(t))
        densities = densities * (DENSITY_SCALE * target.planes.slopes(t))
        far = target.planes.near_far[:, 1:]
        fine = composite(densities, colors, edges, rays.directions, far, background)
        return Rendering(fine, target.planes.coordinates(edges), weights, coarse)

    def _edges(
        self,
        target: CostVolume,
        weights: Float[Tensor, "batch ray plane"],
        generator: torch.Generator | None,
    ) -> Float[Tensor, "batch ray edge"]:
        borders = target.planes.edges()[:, None].expand(-1, weights.shape[1], -1)
        settings = self.settings
        count, floor, spread = settings.N_samples, settings.sampling_floor, settings.sampling_spread
        return importance_edges(borders, weights, count, floor, generator, spread)
