"""The model: ``encode`` source views once, ``render`` any rays from what was encoded."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from datasets.views import Views
from models.feature_pyramid import FeaturePyramid, FeaturePyramidConfig
from models.projection import SceneFeatures, observe
from models.radiance_field import RadianceField, RadianceFieldConfig
from models.sampling import bin_centers, importance_edges, stratified_edges
from models.vggt.frozen import FrozenVGGT
from models.volume_rendering import Composite, composite
from utils.cameras import Cameras
from utils.rays import Rays, pixel_grid, pixel_rays

DENSITY_SCALE = 64.0
"""Density that a field output of 1 stands for, in units of one over the depth range.

It makes the model independent of the scene's unit, and puts surfaces (opaque within a hundredth of
the range) within easy reach of the field's output.
"""


@dataclass(frozen=True)
class RenderConfig:
    """How rays are sampled and composited."""

    N_samples: int = 64
    """coarse samples on each ray, stratified between near and far"""
    N_importance: int = 32
    """fine samples on each ray, drawn where the coarse pass found mass"""
    lindisp: bool = False
    """space the coarse samples evenly in inverse depth (for unbounded scenes)"""
    white_bkgd: bool = False
    """what passes through the scene is white instead of black"""
    pad: float = 4.0
    """points up to this many pixels outside a source image still count as seen by it"""

    def __post_init__(self) -> None:
        """Refuse sample counts that leave nothing to render."""
        if self.N_samples < 2 or self.N_importance < 1:
            raise ValueError(
                f"N_samples={self.N_samples} and N_importance={self.N_importance}: "
                "need at least 2 coarse samples and 1 fine one"
            )


@dataclass(frozen=True)
class ModelConfig:
    """The trainable part of the model. The backbone has settings of its own."""

    pyramid: FeaturePyramidConfig = field(default_factory=FeaturePyramidConfig)
    radiance_field: RadianceFieldConfig = field(default_factory=RadianceFieldConfig)
    rendering: RenderConfig = field(default_factory=RenderConfig)

    def __post_init__(self) -> None:
        """Refuse groups that do not divide the channels."""
        channels, groups = self.pyramid.feature_channels, self.radiance_field.similarity_groups
        if channels % groups:
            raise ValueError(
                f"feature_channels={channels} is not a multiple of similarity_groups={groups}"
            )


@dataclass(frozen=True)
class Rendering:
    """Both passes over the same rays."""

    coarse: Composite
    fine: Composite


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

    def __init__(self, config: ModelConfig, backbone: FrozenVGGT) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        sizes = backbone.network.config
        self.pyramid = FeaturePyramid(
            config.pyramid, sizes.token_dim, len(sizes.intermediate_layer_idx)
        )
        self.radiance_field = RadianceField(config.radiance_field, config.pyramid.feature_channels)

    def encode(self, sources: Views) -> SceneFeatures:
        """Turn source views ``(batch, view)`` into what rendering needs. Once per source set."""
        tokens = self.backbone(sources.images, heads=()).tokens
        features = self.pyramid(sources.images, tokens)
        return SceneFeatures(sources.images, features, sources.cameras)

    def render(
        self,
        scene: SceneFeatures,
        rays: Rays,
        near_far: Float[Tensor, "batch 2"],
        generator: torch.Generator | None = None,
    ) -> Rendering:
        """Render rays ``(batch, ray)`` of new cameras: a coarse pass, then one where mass is.

        Deterministic without a generator. Memory grows with the number of rays; see
        ``render_images`` for whole images.
        """
        settings = self.config.rendering
        edges = stratified_edges(
            near_far, rays.origins.shape[1], settings.N_samples, settings.lindisp, generator
        )
        coarse = self._pass(scene, rays, edges, near_far)
        edges = importance_edges(edges, coarse.weights, settings.N_importance, generator=generator)
        return Rendering(coarse, self._pass(scene, rays, edges, near_far))

    @torch.no_grad()
    def render_images(
        self,
        scene: SceneFeatures,
        cameras: Cameras,
        near_far: Float[Tensor, "batch 2"],
        size: tuple[int, int],
        chunk: int = 8192,
    ) -> RenderedImages:
        """Render one whole image per scene, ``chunk`` rays at a time.

        Args:
            scene: The encoded sources.
            cameras: One target camera per scene, ``(batch,)``.
            near_far: Depth range of each scene.
            size: Height and width of the images.
            chunk: Rays per scene in one go; bounds the memory whatever the image's size.
        """
        height, width = size
        pixels = pixel_grid(height, width, near_far.device)
        parts = [
            self.render(
                scene, pixel_rays(cameras, part.expand(len(near_far), -1, -1)), near_far
            ).fine
            for part in pixels.split(chunk)
        ]
        rgb = torch.cat([part.rgb for part in parts], 1).transpose(1, 2)
        return RenderedImages(
            rgb=rgb.unflatten(-1, size),
            depth=torch.cat([part.depth for part in parts], 1).unflatten(-1, size),
            opacity=torch.cat([part.opacity for part in parts], 1).unflatten(-1, size),
        )

    def _pass(
        self,
        scene: SceneFeatures,
        rays: Rays,
        t_edges: Float[Tensor, "batch ray edge"],
        near_far: Float[Tensor, "batch 2"],
    ) -> Composite:
        centers = bin_centers(t_edges)
        observations = observe(scene, rays, centers, self.config.rendering.pad)
        near, far = near_far[:, 0, None, None], near_far[:, 1, None, None]
        positions = (centers - near) / (far - near)
        densities, colors = self.radiance_field(observations, positions)
        densities = densities * DENSITY_SCALE / (far - near)
        background = 1.0 if self.config.rendering.white_bkgd else 0.0
        return composite(densities, colors, t_edges, rays.directions, near_far[:, 1:], background)
