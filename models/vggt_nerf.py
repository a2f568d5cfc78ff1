"""The model, from top to bottom.

``encode``             source images -> frozen VGGT -> feature pyramid, refined depth prior
``build_cost_volume``  in front of a target camera: where the surface may be
``render``             rays -> samples -> projection -> radiance field -> volume rendering
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from datasets.views import Views
from models.config import ModelConfig, RenderConfig
from models.cost_volume import CELLS, FINE_CELLS, CostVolume, CostVolumeNet, composite_planes
from models.depth_prior import build_depth_prior
from models.depth_refinement import refine_depth_prior
from models.encoder import FeaturePyramid, fill_missing_views
from models.projection import SceneFeatures, sample_source_views
from models.radiance_field import RadianceField
from models.ray_sampling import DepthPlanes, bin_centers, importance_edges
from models.vggt.backbone import Backbone
from models.volume_rendering import Composite, composite
from utils.cameras import Cameras, pixel_grid, pixel_rays

DENSITY_SCALE = 128.0
"""Density of a field output of 1, per unit of ``DepthPlanes``' coordinate.

It makes the model independent of the scene's unit, puts surfaces (opaque within a hundredth of the
range) within easy reach of the field's output, and makes far surfaces of unbounded scenes as thick
as they are coarsely sampled.
"""
CPU_RAYS = 2048
"""Most rays at once on a CPU: more take longer, since they leave its cache."""


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


@dataclass(frozen=True)
class RenderedImages:
    """Whole images of a batch of cameras."""

    rgb: Float[Tensor, "batch 3 height width"]
    depth: Float[Tensor, "batch height width"]
    opacity: Float[Tensor, "batch height width"]


class VGGTNeRF(nn.Module):
    """A radiance field conditioned on a few images through a frozen VGGT.

    The backbone is not part of ``parameters()`` nor of ``state_dict()``: checkpoints hold what was
    trained and the backbone's fingerprint.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        channels = config.pyramid.feature_channels
        self.pyramid = FeaturePyramid(config.pyramid, backbone.token_channels, backbone.num_layers)
        self.volume = CostVolumeNet(config.volume, config.pyramid.coarse_channels)
        self.radiance_field = RadianceField(
            config.radiance_field, channels, config.volume.volume_channels
        )
        self._render_rays = render_rays

    def compile_rendering(self) -> None:
        """Use compiled graphs for cost volume and rendering: the first image takes a minute more.

        Eagerly, most of the time goes into reading and writing intermediate tensors.
        """
        self.volume.to(memory_format=torch.channels_last_3d).compile(dynamic=False)
        self._render_rays = torch.compile(render_rays, dynamic=False)

    def encode(
        self,
        sources: Views,
        near_far: Float[Tensor, "batch 2"],
        view_mask: Bool[Tensor, "batch view"] | None = None,
        refine: bool = True,
    ) -> SceneFeatures:
        """Turn source views ``(batch, view)`` into what rendering needs. Once per source set.

        ``view_mask`` says which views exist, one or more of each scene; ``refine`` improves the
        backbone's depth by cost volumes in front of the sources.
        """
        images = sources.images
        if view_mask is not None:
            images = fill_missing_views(images, view_mask)
        predicted = self.backbone(images, heads=("camera", "depth"))
        maps = self.pyramid(images, predicted.tokens)
        prior = build_depth_prior(predicted, images, sources.cameras, near_far, view_mask)
        scene = SceneFeatures(images, maps.fine, maps.coarse, sources.cameras, prior, view_mask)
        if not refine:
            return scene

        def build_volume(scene: SceneFeatures, cameras: Cameras) -> CostVolume:
            return self.build_cost_volume(scene, cameras, near_far, sources.size, FINE_CELLS)

        return replace(scene, prior=refine_depth_prior(build_volume, scene))

    def build_cost_volume(
        self,
        scene: SceneFeatures,
        cameras: Cameras,
        near_far: Float[Tensor, "batch 2"],
        size: tuple[int, int],
        cells: int = CELLS,
    ) -> CostVolume:
        """Build the cost volume of one target camera ``(batch,)`` per scene. Once per image."""
        settings = self.config.rendering
        planes = DepthPlanes(near_far, settings.N_planes, settings.lindisp)
        return self.volume(scene, cameras, planes, size, settings.pad, cells)

    def render(
        self,
        scene: SceneFeatures,
        volume: CostVolume,
        pixels: Float[Tensor, "batch ray 2"],
        generator: torch.Generator | None = None,
        with_coarse: bool = False,
    ) -> Rendering:
        """Render pixel positions of the target cameras.

        A generator moves the samples at random. ``with_coarse`` also composites the volume's
        planes, which training needs. Memory grows with the number of rays; see ``render_images``.
        """
        settings = self.config.rendering
        return self._render_rays(
            *(self.radiance_field, settings, scene, volume, pixels, generator, with_coarse)
        )

    @torch.no_grad()
    def render_images(
        self,
        scene: SceneFeatures,
        cameras: Cameras,
        near_far: Float[Tensor, "batch 2"],
        size: tuple[int, int],
        chunk: int = 8192,
        before_chunk: Callable[[], None] | None = None,
    ) -> RenderedImages:
        """Render one image per scene, ``chunk`` rays at a time: on a CPU at most ``CPU_RAYS``.

        An exception that ``before_chunk`` raises cancels the image.
        """
        volume = self.build_cost_volume(scene, cameras, near_far, size)
        pixels = pixel_grid(*size, near_far.device)
        chunk = min(chunk, CPU_RAYS) if pixels.device.type == "cpu" else chunk
        parts = []
        for part in pixels.split(chunk):
            if before_chunk:
                before_chunk()
            rays = part.expand(len(near_far), -1, -1)
            parts.append(self.render(scene, volume, rays).fine)
        rgb = torch.cat([part.rgb for part in parts], 1).transpose(1, 2)
        return RenderedImages(
            rgb=rgb.unflatten(-1, size),
            depth=torch.cat([part.depth for part in parts], 1).unflatten(-1, size),
            opacity=torch.cat([part.opacity for part in parts], 1).unflatten(-1, size),
        )


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
    edges = importance_edges(borders, weights, count, floor, generator, settings.sampling_spread)
    t = bin_centers(edges)
    # 2. Projection into the source views, and the radiance field.
    samples = sample_source_views(scene, rays, t, planes, settings.pad)
    context = volume.read_features(pixels, t)
    densities, colors = field(samples, context, planes.coordinates(t))
    # 3. Volume rendering.
    densities = densities * (DENSITY_SCALE * planes.slopes(t))
    far = planes.near_far[:, 1:]
    fine = composite(densities, colors, edges, rays.directions, far, background)
    coarse = None
    if with_coarse:
        coarse = composite_planes(scene, volume, rays, weights, background)
    return Rendering(fine, planes.coordinates(edges), weights, coarse)
