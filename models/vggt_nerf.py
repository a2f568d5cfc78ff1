"""The model: ``encode`` sources, ``look`` from a target camera, ``render`` any of its pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from datasets.views import Views
from models.absent_views import fill_missing_views
from models.config import ModelConfig
from models.cost_volume import CELLS, FINE_CELLS, CostVolume, CostVolumeNet
from models.depth_prior import build_depth_prior
from models.depth_refinement import refine_depth_prior
from models.encoder import FeaturePyramid
from models.projection import SceneFeatures
from models.radiance_field import RadianceField
from models.ray_rendering import RayRenderer, Rendering
from models.ray_sampling import DepthPlanes
from models.vggt.backbone import Backbone
from utils.cameras import Cameras
from utils.rays import pixel_grid

CPU_RAYS = 2048
"""Rays in one go on a CPU: more at once take longer, for want of cache and fresh memory."""


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
        self._render_rays = RayRenderer.render

    def compile_rendering(self) -> None:
        """Look and render by compiled graphs from now on: the first image takes a minute more."""
        self.volume.to(memory_format=torch.channels_last_3d).compile(dynamic=False)
        self._render_rays = torch.compile(RayRenderer.render, dynamic=False)

    def encode(
        self,
        sources: Views,
        near_far: Float[Tensor, "batch 2"],
        view_mask: Bool[Tensor, "batch view"] | None = None,
        refine: bool = True,
    ) -> SceneFeatures:
        """Turn source views ``(batch, view)`` into what rendering needs. Once per source set.

        Args:
            sources: One view or more.
            near_far: Depth range of each scene, where the backbone's depth is to lie.
            view_mask: Views that there are, at least one of each scene; all unless given. So scenes
                of one batch can have different numbers of them.
            refine: Sharpen the backbone's depth by looking from every source; otherwise the prior
                is what the backbone believes.
        """
        images = (
            sources.images if view_mask is None else fill_missing_views(sources.images, view_mask)
        )
        seen = self.backbone(images, heads=("camera", "depth"))
        maps = self.pyramid(images, seen.tokens)
        prior = build_depth_prior(seen, images, sources.cameras, near_far, view_mask)
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
        """Gather what the sources say about one target camera per scene. Once per image.

        Args:
            scene: The encoded sources.
            cameras: Target cameras, ``(batch,)``.
            near_far: Depth range of each scene.
            size: Height and width of the target images.
            cells: Rays of the volume along their longer side, as in ``volume_grid``.
        """
        settings = self.config.rendering
        planes = DepthPlanes(near_far, settings.N_planes, settings.lindisp)
        return self.volume(scene, cameras, planes, size, settings.pad, cells)

    def render(
        self,
        scene: SceneFeatures,
        target: CostVolume,
        pixels: Float[Tensor, "batch ray 2"],
        generator: torch.Generator | None = None,
        with_coarse: bool = False,
    ) -> Rendering:
        """Render pixel positions of the target cameras.

        Deterministic without a generator. Memory grows with the number of rays; see
        ``render_images`` for whole images.

        Args:
            scene: The encoded sources.
            target: What ``look`` made of them.
            pixels: Positions in the target images.
            generator: Moves the samples at random.
            with_coarse: Also composite the volume's own opinion, which training needs.
        """
        renderer = RayRenderer(self.radiance_field, self.config.rendering)
        return self._render_rays(renderer, scene, target, pixels, generator, with_coarse)

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
        """Render one whole image per scene, ``chunk`` rays at a time.

        Args:
            scene: The encoded sources.
            cameras: One target camera per scene, ``(batch,)``.
            near_far: Depth range of each scene.
            size: Height and width of the images.
            chunk: Rays per scene in one go; bounds the memory whatever the image's size. On a CPU
                there are never more than ``CPU_RAYS``.
            before_chunk: Called before each; whatever it raises gives the image up.
        """
        target = self.build_cost_volume(scene, cameras, near_far, size)
        pixels = pixel_grid(*size, near_far.device)
        chunk = min(chunk, CPU_RAYS) if pixels.device.type == "cpu" else chunk
        parts = []
        for part in pixels.split(chunk):
            if before_chunk:
                before_chunk()
            rays = part.expand(len(near_far), -1, -1)
            parts.append(self.render(scene, target, rays).fine)
        rgb = torch.cat([part.rgb for part in parts], 1).transpose(1, 2)
        return RenderedImages(
            rgb=rgb.unflatten(-1, size),
            depth=torch.cat([part.depth for part in parts], 1).unflatten(-1, size),
            opacity=torch.cat([part.opacity for part in parts], 1).unflatten(-1, size),
        )
