"""VGGT-NeRF: a generalizable radiance field conditioned on source images through a frozen VGGT.

``encode``             source images -> frozen VGGT -> feature pyramid, refined depth prior
``build_cost_volume``  first level of the cost volume in front of a target camera
``render_window``      bundles of pixels -> second level of the cost volume -> samples -> projection
                       -> radiance field -> volume rendering -> unseen colours -> decoder
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from types import MethodType
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from datasets.views import Views
from models.bundles import (
    BundleRays,
    Window,
    WindowRendering,
    join_bundles,
    render_bundles,
    whole_images,
    whole_window,
)
from models.config import ModelConfig
from models.cost_volume import CostVolume, CostVolumeNet, FineVolumeNet
from models.cuda_graphs import GraphCache
from models.decoder import Decoder
from models.depth_prior import SHRINK, build_depth_prior, refined_depth_prior
from models.encoder import FeaturePyramid, fill_missing_views
from models.novel_view import RenderedImages, encoding, rendering
from models.projection import SceneFeatures
from models.radiance_field import RadianceField
from models.ray_sampling import BIN_CHANNELS, DepthPlanes, RayBins
from models.unseen import MAP_CHANNELS, decoder_input
from models.vggt.backbone import Backbone, BackboneFeatures, FrozenVGGT
from utils.cameras import Cameras
from utils.memory import rays_that_fit

if TYPE_CHECKING:
    from models.scenes.photographed_scene import PhotographedScene

CPU_RAYS = 2048
"""Maximum rays rendered at once on a CPU, so that their samples stay in its cache."""


class VGGTNeRF(nn.Module):
    """The model: ``encode`` once per set of source views, then ``render_images`` for any camera.

    The frozen backbone is not part of ``parameters()`` or ``state_dict()``: checkpoints hold the
    trained weights and the backbone's fingerprint.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        channels = config.pyramid.feature_channels
        self.pyramid = FeaturePyramid(config.pyramid, backbone.token_channels, backbone.num_layers)
        self.volume = CostVolumeNet(config.volume, config.pyramid.coarse_channels)
        context, num_pixels = config.volume.volume_channels, config.rendering.bundle_size**2
        self.radiance_field = RadianceField(
            config.radiance_field, channels, context + BIN_CHANNELS, num_pixels
        )
        groups = config.radiance_field.similarity_groups
        self.fine_volume = FineVolumeNet(config.volume, channels, groups)
        colors = 3 * num_pixels
        inputs = colors + config.radiance_field.composited_channels + MAP_CHANNELS
        self.decoder = Decoder(config.decoder.decoder_widths, inputs, colors)
        self._render_bundles = render_bundles
        self._find_surface, self._render_whole = VGGTNeRF.find_surface, VGGTNeRF._render_images
        self.graphs = GraphCache()

    @classmethod
    def from_pretrained(cls, path: str, device: torch.device | str = "cpu") -> VGGTNeRF:
        """Load a general model from its checkpoint, or from a folder with one, ready to render."""
        from models.checkpoints.general import read_checkpoint

        return read_checkpoint(path).build_model(device)

    def encode_images(
        self,
        images: Shaped[np.ndarray, ...],
        K: Shaped[np.ndarray, ...] | None = None,  # noqa: N803
        c2w: Shaped[np.ndarray, ...] | None = None,
        near_far: tuple[float, float] | None = None,
        n_views: int = 3,
    ) -> PhotographedScene:
        """Return a scene that renders any camera from its ``n_views`` nearest photographs.

        ``images`` are uint8 (view, height, width, 3); cameras ``K`` (view, 3, 3) and ``c2w`` (view,
        4, 4) follow ``utils.cameras``. Without cameras both are estimated, and photographs that
        cannot be registered are left out. Near and far are estimated unless given.
        """
        from models.scenes.photographed_scene import photographed_scene

        return photographed_scene(self, images, K, c2w, near_far, n_views)

    @property
    def num_samples(self) -> int:
        """Samples per ray."""
        return self.config.rendering.N_samples

    @property
    def fingerprint(self) -> str:
        """Identify everything that affects renderings apart from ``state_dict``."""
        return repr((self.config, self.backbone.fingerprint))

    def with_samples(self, count: int) -> VGGTNeRF:
        """Return the model with another number of samples per ray; the weights are shared."""
        model = copy.copy(self)
        rendering = replace(self.config.rendering, N_samples=count)
        model.config = replace(self.config, rendering=rendering)
        model.graphs = GraphCache()
        return model

    def compile_rendering(self) -> None:
        """Compile backbone, cost volume and rendering; the first image takes minutes more."""
        for network in (self.volume, self.fine_volume):
            network.to(memory_format=torch.channels_last_3d).compile(dynamic=False)
        self.decoder.to(memory_format=torch.channels_last).compile(dynamic=False)
        self.pyramid.compile(dynamic=False)
        self._render_bundles = torch.compile(render_bundles, dynamic=False)
        self._find_surface = torch.compile(VGGTNeRF.find_surface, dynamic=False)
        self._render_whole = torch.compile(VGGTNeRF._render_images, dynamic=False)
        if isinstance(self.backbone, FrozenVGGT):
            self.backbone.compile_blocks()
        self.graphs = GraphCache()

    def encode(
        self,
        sources: Views,
        near_far: Float[Tensor, "batch 2"],
        view_mask: Bool[Tensor, "batch view"] | None = None,
        refine: bool = True,
        predicted: BackboneFeatures | None = None,
    ) -> SceneFeatures:
        """Encode source views ``(batch, view)``. Once per set of sources.

        ``view_mask`` marks the views that exist, at least one per scene. ``refine`` improves the
        backbone's depth by cost volumes in front of the sources. ``predicted`` is the backbone's
        output for the sources, if already computed.
        """
        with encoding(sources, self.training):
            if predicted is None and not self.training:
                return self.graphs(self._encode, sources, near_far, view_mask, refine)
            return self._encode(sources, near_far, view_mask, refine, predicted)

    def _encode(
        self,
        sources: Views,
        near_far: Float[Tensor, "batch 2"],
        view_mask: Bool[Tensor, "batch view"] | None,
        refine: bool,
        predicted: BackboneFeatures | None = None,
    ) -> SceneFeatures:
        images = sources.images
        if view_mask is not None:
            images = fill_missing_views(sources, view_mask).images
        features = predicted or self.backbone(images, heads=("camera", "depth"))
        maps = self.pyramid(images, features.tokens)
        prior = build_depth_prior(features, images, sources.cameras, near_far, view_mask)
        scene = SceneFeatures(images, maps.fine, maps.coarse, sources.cameras, prior, view_mask)
        return self.refine(scene, near_far) if refine else scene

    @torch.no_grad()
    def refine(self, scene: SceneFeatures, near_far: Float[Tensor, "batch 2"]) -> SceneFeatures:
        """Replace the depth of the sources by that of cost volumes in front of them.

        Not differentiable: losses supervise the cost volumes of targets and of single sources.
        """
        sources = (scene.cameras[:, view] for view in range(scene.images.shape[1]))
        find, size = self._find_surface, scene.size
        surfaces = [find(self, scene, camera, near_far, size) for camera in sources]
        depth, mass = (torch.stack(maps, 1) for maps in zip(*surfaces, strict=True))
        prior = refined_depth_prior(
            scene.prior, depth, mass, scene.cameras, scene.size, scene.view_mask
        )
        return replace(scene, prior=prior)

    def find_surface(
        self,
        scene: SceneFeatures,
        cameras: Cameras,
        near_far: Float[Tensor, "batch 2"],
        size: tuple[int, int],
    ) -> tuple[Float[Tensor, "batch row column"], Float[Tensor, "batch row column"]]:
        """Return depth and weight of the surface that one camera ``(batch,)`` per scene sees."""
        volume = self.build_cost_volume(scene, cameras, near_far, size)
        window = whole_window(size, SHRINK, len(near_far), near_far.device)
        depth, mass = self.find_bins(scene, volume, window)[-1].expected_surface()
        return depth.unflatten(1, window.shape), mass.unflatten(1, window.shape)

    def build_cost_volume(
        self,
        scene: SceneFeatures,
        cameras: Cameras,
        near_far: Float[Tensor, "batch 2"],
        size: tuple[int, int],
    ) -> CostVolume:
        """Build the first level for one target camera ``(batch,)`` per scene. Once per image."""
        settings = self.config.rendering
        planes = DepthPlanes(near_far, settings.N_planes, settings.lindisp)
        return self.volume(scene, cameras, planes, size, settings.pad)

    def find_bins(
        self,
        scene: SceneFeatures,
        volume: CostVolume,
        window: Window,
        generator: torch.Generator | None = None,
    ) -> tuple[RayBins, RayBins]:
        """Return the bins of a window's bundles in both levels of the cost volume."""
        first = volume.ray_bins(window.centers())
        settings = self.config.rendering
        return first, self.fine_volume(scene, volume, first, window, settings, generator)

    def render_window(
        self,
        scene: SceneFeatures,
        volume: CostVolume,
        window: Window,
        generator: torch.Generator | None = None,
        chunk: int | None = None,
        before_chunk: Callable[[], None] | None = None,
    ) -> WindowRendering:
        """Render a window of each target image, at most ``chunk`` pixels at a time.

        The decoder runs once, on the whole window. A generator moves the samples at random.
        """
        settings, planes = self.config.rendering, volume.planes
        levels = self.find_bins(scene, volume, window, generator)
        rays = BundleRays.of_window(volume.cameras, window)
        total = window.shape[0] * window.shape[1]
        step = max(chunk // window.side**2, 1) if chunk else total
        parts, pixels, device = [], step * window.side**2, window.corners.device
        for start in range(0, total, step):
            if before_chunk:
                before_chunk()
            bundles = slice(start, min(start + step, total))
            inputs = settings, scene, planes, rays.part(bundles), levels[-1].part(bundles)
            with rendering(device, rays=pixels):
                parts.append(self._render_bundles(self.radiance_field, *inputs, generator))
        rendered = join_bundles(parts)
        inputs = decoder_input(scene, rendered, window, planes)
        correction = self.decoder(inputs.maps).float()
        corrected = inputs.colors + correction.flatten(2).transpose(1, 2)
        return WindowRendering(window.to_image(corrected), rendered, levels, rays.centers)

    @torch.no_grad()
    def render_images(
        self,
        scene: SceneFeatures,
        cameras: Cameras,
        near_far: Float[Tensor, "batch 2"],
        size: tuple[int, int],
        chunk: int | None = None,
        before_chunk: Callable[[], None] | None = None,
    ) -> RenderedImages:
        """Render one image per scene; see ``NovelViewModel``.

        On a CPU a chunk has at most ``CPU_RAYS`` bundles.
        """
        side, device = self.config.rendering.bundle_size, near_far.device
        with rendering(device, size):
            if chunk is None:
                ray_bytes = len(near_far) * self.config.ray_bytes(scene.images.shape[1])
                chunk = rays_that_fit(device, ray_bytes, math.prod(size))
            if device.type == "cpu":
                chunk = min(chunk, CPU_RAYS * side**2)
            view = (scene, cameras, near_far, size, chunk)
            if self.training or chunk < math.prod(size):
                return self._render_images(*view, before_chunk)
            if before_chunk:
                before_chunk()
            # A bound method: as an argument, the model would be part of the cache's keys.
            return self.graphs(MethodType(self._render_whole, self), *view)

    def _render_images(
        self,
        scene: SceneFeatures,
        cameras: Cameras,
        near_far: Float[Tensor, "batch 2"],
        size: tuple[int, int],
        chunk: int,
        before_chunk: Callable[[], None] | None = None,
    ) -> RenderedImages:
        volume = self.build_cost_volume(scene, cameras, near_far, size)
        side = self.config.rendering.bundle_size
        window = whole_window(size, side, len(near_far), near_far.device)
        images = self.render_window(scene, volume, window, None, chunk, before_chunk)
        return whole_images(images, window, size)
