"""Rendering of single rays: samples, projection, radiance field, volume rendering."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.config import RenderConfig
from models.cost_volume import CostVolume, composite_planes
from models.projection import SceneFeatures, sample_source_views
from models.radiance_field import RadianceField
from models.ray_sampling import bin_centers, importance_bins
from models.volume_rendering import Composite, composite
from utils.cameras import pixel_rays

DENSITY_SCALE = 128.0
"""Density of a field output of 1, per unit of ``DepthPlanes``' coordinate.

It makes the model independent of the scene's unit, puts surfaces (opaque within a hundredth of the
range) within easy reach of the field's output, and makes far surfaces of unbounded scenes as thick
as they are coarsely sampled.
"""


@dataclass(frozen=True)
class Rendering:
    """Rendered rays of the target cameras."""

    fine: Composite
    t_edges: Float[Tensor, "*batch ray edge"]
    """Borders of the samples' bins, from 0 at near to 1 at far."""
    plane_weights: Float[Tensor, "*batch ray plane"]
    """Of the cost volume: where samples were drawn."""
    coarse: Composite | None = None
    """The cost volume's planes, composited; only if asked for."""


def render_rays(
    field: RadianceField,
    settings: RenderConfig,
    scene: SceneFeatures,
    volume: CostVolume,
    pixels: Float[Tensor, "batch ray 2"],
    generator: torch.Generator | None = None,
    with_coarse: bool = False,
) -> Rendering:
    """Render pixels; ``VGGTNeRF.render`` documents the arguments.

    A function of its arguments alone, so that ``torch.compile`` turns it into one graph.
    """
    rays, planes = pixel_rays(volume.cameras, pixels), volume.planes
    background = settings.background
    # 1. Samples where the cost volume has weight.
    weights = volume.plane_weights(pixels)
    borders = planes.edges()[:, None].expand(-1, weights.shape[1], -1)
    count, floor = settings.N_samples, settings.sampling_floor
    edges, _ = importance_bins(borders, weights, count, floor, generator, settings.sampling_spread)
    t = bin_centers(edges)
    # 2. Projection into the source views, and the radiance field.
    samples = sample_source_views(scene, rays, t, planes, settings.pad)
    context = volume.read_features(pixels, t)
    found = field(samples, context, planes.coordinates(t))
    # 3. Volume rendering.
    densities = found.densities * (DENSITY_SCALE * planes.slopes(t))
    far = planes.near_far[:, 1:]
    fine = composite(densities, found.colors, edges, rays.directions, far, background)
    coarse = None
    if with_coarse:
        coarse = composite_planes(scene, volume, rays, weights, background)
    return Rendering(fine, planes.coordinates(edges), weights, coarse)
