"""The model: ``encode`` sources, ``look`` from a target camera, ``render`` any of its pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from datasets.views import Views
from models.absent_views import cover_absent
from models.backbone import Backbone
from models.coarse_pass import coarse_composite
from models.feature_pyramid import FeaturePyramid, FeaturePyramidConfig
from models.field_samples import field_samples
from models.finetuning.residual import ResidualRendering, SceneResidual
from models.geometry_prior import geometry_prior
from models.prior_refinement import refine_prior
from models.projection import SceneFeatures
from models.radiance_field import RadianceField, RadianceFieldConfig
from models.sampling import DepthPlanes, bin_centers, importance_edges
from models.target_volume import TargetVolume, TargetVolumeBuilder, TargetVolumeConfig
from models.volume_rendering import Composite, composite
from utils.cameras import Cameras
from utils.rays import Rays, pixel_grid, pixel_rays

DENSITY_SCALE = 128.0
"""Density that a field output of 1 stands for, per unit of ``DepthPlanes``' coordinate.

It makes the model independent of the scene's unit, puts surfaces (opaque within a hundredth of the
range) within easy reach of the field's output, and makes far surfaces of unbounded scenes as thick
as they are coarsely sampled.
"""


CPU_RAYS = 2048
"""Rays in one go on a CPU: more at once take longer, for want of cache and fresh memory."""


@dataclass(frozen=True)
class RenderConfig:
    """How rays are sampled and composited."""

    N_planes: int = 48
    """depth planes of the coarse volume in front of a target camera"""
    N_samples: int = 16
    """samples on each ray, drawn where the coarse volume found mass"""
    sampling_floor: float = 0.15
    """share of the samples that is spread over the whole range whatever the volume says"""
    lindisp: bool = False
    """space the planes evenly in inverse depth (for unbounded scenes)"""
    white_bkgd: bool = False
    """what passes through the scene is white instead of black"""
    pad: float = 4.0
    """points up to this many pixels outside a source image still count as seen by it"""

    def __post_init__(self) -> None:
        """Refuse counts that leave nothing to render."""
        if self.N_planes < 2 or self.N_samples < 2:
            raise ValueError(
                f"N_planes={self.N_planes} and N_samples={self.N_samples}: need at least 2 of each"
            )
        if not 0 < self.sampling_floor <= 1:
            raise ValueError(f"sampling_floor={self.sampling_floor} must lie in (0, 1]")

    @property
    def background(self) -> float:
        """Grey value of what lies behind everything."""
        return 1.0 if self.white_bkgd else 0.0


@dataclass(frozen=True)
class ModelConfig:
    """The trainable part of the model. The backbone has settings of its own."""

    pyramid: FeaturePyramidConfig = field(default_factory=FeaturePyramidConfig)
    volume: TargetVolumeConfig = field(default_factory=TargetVolumeConfig)
    radiance_field: RadianceFieldConfig = field(default_factory=RadianceFieldConfig)
    rendering: RenderConfig = field(default_factory=RenderConfig)

    def __post_init__(self) -> None:
        """Refuse groups that do not divide the channels."""
        for channels, groups in (
            ("feature_channels", "similarity_groups"),
            ("coarse_channels", "volume_groups"),
        ):
            values = {**vars(self.pyramid), **vars(self.radiance_field), **vars(self.volume)}
            if values[channels] % values[groups]:
                raise ValueError(
                    f"{channels}={values[channels]} is not a multiple of {groups}={values[groups]}"
                )


@dataclass(frozen=True)
class Rendering:
    """Rays as the field sees them and, if asked for, as the coarse volume does."""

    fine: Composite
    t_edges: Float[Tensor, "*batch ray edge"]
    """Borders of the fine bins, from 0 at near to 1 at far."""
    coarse: Composite | None = None
    residual: ResidualRendering | None = None
    """Of a model that has been fine-tuned on one scene."""


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
        self.volume = TargetVolumeBuilder(config.volume, config.pyramid.coarse_channels)
        self.radiance_field = RadianceField(
            config.radiance_field, channels, config.volume.volume_channels
        )
        self._field_samples = field_samples

    def compile_field(self) -> None:
        """Render by a compiled graph from now on: the first image takes a minute more."""
        self._field_samples = torch.compile(field_samples, fullgraph=True)

    def encode(
        self,
        sources: Views,
        near_far: Float[Tensor, "batch 2"],
        present: Bool[Tensor, "batch view"] | None = None,
        refine: bool = True,
    ) -> SceneFeatures:
        """Turn source views ``(batch, view)`` into what rendering needs. Once per source set.

        Args:
            sources: One view or more.
            near_far: Depth range of each scene, where the backbone's depth is to lie.
            present: Views that there are, at least one of each scene; all unless given. So scenes
                of one batch can have different numbers of them.
            refine: Sharpen the backbone's depth by looking from every source; otherwise the prior
                is what the backbone believes.
        """
        images = sources.images if present is None else cover_absent(sources.images, present)
        seen = self.backbone(images, heads=("camera", "depth"))
        maps = self.pyramid(images, seen.tokens)
        prior = geometry_prior(seen, images, sources.cameras, near_far, present)
        scene = SceneFeatures(images, maps.fine, maps.coarse, sources.cameras, prior, present)
        if not refine:
            return scene

        def look(scene: SceneFeatures, cameras: Cameras) -> TargetVolume:
            return self.look(scene, cameras, near_far, sources.size)

        return replace(scene, prior=refine_prior(look, scene))

    def look(
        self,
        scene: SceneFeatures,
        cameras: Cameras,
        near_far: Float[Tensor, "batch 2"],
        size: tuple[int, int],
    ) -> TargetVolume:
        """Gather what the sources say about one target camera per scene. Once per image.

        Args:
            scene: The encoded sources.
            cameras: Target cameras, ``(batch,)``.
            near_far: Depth range of each scene.
            size: Height and width of the target images.
        """
        settings = self.config.rendering
        planes = DepthPlanes(near_far, settings.N_planes, settings.lindisp)
        return self.volume(scene, cameras, planes, size, settings.pad)

    def render(
        self,
        scene: SceneFeatures,
        target: TargetVolume,
        pixels: Float[Tensor, "batch ray 2"],
        generator: torch.Generator | None = None,
        with_coarse: bool = False,
        residual: SceneResidual | None = None,
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
            residual: What fine-tuning has learnt about this very scene.
        """
        settings = self.config.rendering
        rays = pixel_rays(target.cameras, pixels)
        weights = target.plane_weights(pixels)
        borders = target.planes.edges()[:, None].expand(-1, pixels.shape[1], -1)
        guided = weights if residual is None else residual.guide(rays, target.planes, weights)
        edges = importance_edges(
            borders, guided, settings.N_samples, settings.sampling_floor, generator
        )
        coarse = None
        if with_coarse:
            coarse = coarse_composite(scene, target, rays, weights, settings.background)
        fine, own = self._fine(scene, target, rays, pixels, edges, residual)
        shown = None if own is None else ResidualRendering(own, guided)
        return Rendering(fine, target.planes.coordinates(edges), coarse, shown)

    @torch.no_grad()
    def render_images(
        self,
        scene: SceneFeatures,
        cameras: Cameras,
        near_far: Float[Tensor, "batch 2"],
        size: tuple[int, int],
        chunk: int = 8192,
        residual: SceneResidual | None = None,
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
            residual: What fine-tuning has learnt about this very scene.
            before_chunk: Called before each; whatever it raises gives the image up.
        """
        target = self.look(scene, cameras, near_far, size)
        pixels = pixel_grid(*size, near_far.device)
        chunk = min(chunk, CPU_RAYS) if pixels.device.type == "cpu" else chunk
        parts = []
        for part in pixels.split(chunk):
            if before_chunk:
                before_chunk()
            rays = part.expand(len(near_far), -1, -1)
            parts.append(self.render(scene, target, rays, residual=residual).fine)
        rgb = torch.cat([part.rgb for part in parts], 1).transpose(1, 2)
        return RenderedImages(
            rgb=rgb.unflatten(-1, size),
            depth=torch.cat([part.depth for part in parts], 1).unflatten(-1, size),
            opacity=torch.cat([part.opacity for part in parts], 1).unflatten(-1, size),
        )

    def _fine(
        self,
        scene: SceneFeatures,
        target: TargetVolume,
        rays: Rays,
        pixels: Float[Tensor, "batch ray 2"],
        t_edges: Float[Tensor, "batch ray edge"],
        residual: SceneResidual | None,
    ) -> tuple[Composite, Float[Tensor, "batch ray 3"] | None]:
        """Return what the rays see and, of a fine-tuned scene, what its own colours would show."""
        settings = self.config.rendering
        centers = bin_centers(t_edges)
        densities, colors = self._field_samples(
            self.radiance_field, scene, target, rays, pixels, centers, settings.pad
        )
        own = None
        if residual is not None:
            samples = residual(rays.at(centers), rays.viewdirs, densities, colors)
            densities, colors, own = samples.densities, samples.colors, samples.own_colors
        densities = densities * (DENSITY_SCALE * target.planes.slopes(centers))
        far = target.planes.near_far[:, 1:]
        fine = composite(densities, colors, t_edges, rays.directions, far, settings.background)
        if own is None:
            return fine, None
        behind = (1 - fine.opacity) * settings.background
        return fine, (fine.weights[..., None] * own).sum(-2) + behind[..., None]
