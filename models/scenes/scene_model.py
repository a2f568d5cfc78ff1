"""A model and one scene, whose feature maps are parameters that fine-tuning optimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from datasets.views import Views, join
from models.depth_prior import DepthPrior, multiview_consistency
from models.novel_view import NovelViewModel, RenderedImages
from models.projection import SceneFeatures
from models.scenes.source_selection import SizedCameras, choose_sources
from models.vggt_nerf import VGGTNeRF
from utils.cameras import Cameras, full_precision

ModelT = TypeVar("ModelT", bound=NovelViewModel)


class TunableScene(nn.Module, ABC, Generic[ModelT]):
    """Renders cameras of one scene from some of its training views."""

    ENCODER_PREFIXES: ClassVar[tuple[str, ...]]
    """Prefixes of the names of weights that only encoding needs; scene files omit them."""
    images: Tensor
    near_far: Tensor

    def __init__(
        self,
        model: ModelT,
        images: Float[Tensor, "view 3 height width"],
        cameras: Cameras,
        near_far: Float[Tensor, " 2"],
        num_sources: int,
    ) -> None:
        """Render from at most ``num_sources`` of the training views."""
        super().__init__()
        self.model = model
        self.register_buffer("images", images)
        self.register_buffer("intrinsics", cameras.intrinsics)
        self.register_buffer("c2w", cameras.c2w)
        self.register_buffer("near_far", near_far)
        self.num_sources = num_sources

    @property
    def cameras(self) -> Cameras:
        """Cameras of the training views."""
        return Cameras(self.get_buffer("intrinsics"), self.get_buffer("c2w"))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the training views."""
        return self.images.shape[-2], self.images.shape[-1]

    @abstractmethod
    def sources_of(self, cameras: Cameras, size: tuple[int, int]) -> Int[Tensor, "target source"]:
        """Choose the sources of cameras ``(target,)`` with images of ``size``."""

    @abstractmethod
    def gather(self, sources: Int[Tensor, "target source"]) -> Any:  # noqa: ANN401
        """Return the encoded sources of each target, as a batch of one scene per target."""

    @torch.no_grad()
    def render_images(
        self,
        cameras: Cameras,
        size: tuple[int, int],
        chunk: int | None = None,
        near_far: Float[Tensor, " 2"] | None = None,
    ) -> RenderedImages:
        """Render cameras ``(target,)``, by default in the training views' depth range.

        ``chunk`` is as in ``NovelViewModel.render_images``.
        """
        cameras = cameras.to(self.images.device)
        bounds = (self.near_far if near_far is None else near_far.to(self.near_far))[None]
        parts = []
        for target, sources in enumerate(self.sources_of(cameras, size)):
            camera = cameras[target : target + 1]
            scene = self.gather(sources[None])
            parts.append(self.model.render_images(scene, camera, bounds, size, chunk))
        return join(parts)

    def scene_state(self) -> dict[str, Tensor]:
        """Return all tensors that rendering needs, by name; they share memory with the model."""
        own = self.state_dict()
        return {name: own[name] for name in own if not name.startswith(self.ENCODER_PREFIXES)}

    def load_scene_state(self, state: dict[str, Tensor]) -> None:
        """Load the result of ``scene_state``; raises ``RuntimeError`` for other tensors."""
        keys = self.load_state_dict(state, strict=False)
        missing = [name for name in keys.missing_keys if not name.startswith(self.ENCODER_PREFIXES)]
        if missing or keys.unexpected_keys:
            raise RuntimeError(f"missing {missing[:3]}, unexpected {keys.unexpected_keys[:3]}")


@dataclass(frozen=True)
class SceneMaps:
    """The encoded training views."""

    fine: Float[Tensor, "view channel map_height map_width"]
    coarse: Float[Tensor, "view coarse_channel coarse_height coarse_width"]
    depth: Float[Tensor, "view rows columns"]
    confidence: Float[Tensor, "view rows columns"]
    """Confidence of the depth prior times its reliability."""
    reliability: Float[Tensor, " view"]


class SceneModel(TunableScene[VGGTNeRF]):
    """VGGT-NeRF and one scene; each camera is rendered from the views that cover it best."""

    ENCODER_PREFIXES = ("model.pyramid.",)
    depth: Tensor
    confidence: Tensor
    reliability: Tensor

    def __init__(
        self,
        model: VGGTNeRF,
        images: Float[Tensor, "view 3 height width"],
        cameras: Cameras,
        near_far: Float[Tensor, " 2"],
        maps: SceneMaps,
        num_sources: int,
    ) -> None:
        """Render from at most ``num_sources`` of the training views."""
        super().__init__(model, images, cameras, near_far, num_sources)
        self.fine, self.coarse = nn.Parameter(maps.fine), nn.Parameter(maps.coarse)
        for name in ("depth", "confidence", "reliability"):
            self.register_buffer(name, getattr(maps, name))

    def sources_of_training_views(self, count: int) -> Int[Tensor, "view source"]:
        """Choose at most ``count`` sources for every training view, never the view itself."""
        count = min(count, len(self.images) - 1)
        return self._choose(self.cameras, self.size, count, own=self._all_views())

    @torch.no_grad()
    def refine_depth_prior(self) -> None:
        """Estimate the depth of every training view anew, by the present cost volume."""
        neighbours = self.sources_of_training_views(self.num_sources - 1)
        groups = torch.cat([self._all_views()[:, None], neighbours], 1)
        surfaces = []
        for view, group in enumerate(groups):
            camera, scene = self.cameras[view : view + 1], self.gather(group[None])
            surfaces.append(self.model.find_surface(scene, camera, self.near_far[None], self.size))
        depth, mass = (torch.cat(parts) for parts in zip(*surfaces, strict=True))
        # Assign new tensors: a saved state may still hold the old ones.
        self.depth, self.confidence = depth, mass * self._consistency(depth, mass, groups)
        self.reliability = torch.ones_like(self.reliability)

    def sources_of(self, cameras: Cameras, size: tuple[int, int]) -> Int[Tensor, "target source"]:
        """Choose the training views that cover best what each camera sees."""
        return self._choose(cameras, size, min(self.num_sources, len(self.images)))

    def gather(self, sources: Int[Tensor, "target source"]) -> SceneFeatures:
        """Return the maps of each target's sources, as a batch of one scene per target."""
        reliability = self.reliability[sources].mean(1)
        confidence = self.confidence[sources] / reliability.clamp_min(1e-6)[:, None, None, None]
        images, features, coarse_features = (
            maps.index_select(0, sources.flatten()).unflatten(0, sources.shape)
            for maps in (self.images, self.fine, self.coarse)
        )
        return SceneFeatures(
            images=images,
            features=features,
            coarse_features=coarse_features,
            cameras=self.cameras[sources],
            prior=DepthPrior(self.depth[sources], confidence, reliability),
        )

    def _consistency(
        self,
        depth: Float[Tensor, "view row column"],
        mass: Float[Tensor, "view row column"],
        groups: Int[Tensor, "view member"],
    ) -> Float[Tensor, "view row column"]:
        """Compare each view's depth with its neighbours', one group at a time to save memory."""
        view_mask = torch.ones_like(groups[:1], dtype=torch.bool)
        parts = []
        for group in groups.split(1):
            with full_precision(depth):
                consistency = multiview_consistency(
                    depth[group], mass[group], self.cameras[group], self.size, view_mask
                )
            parts.append(consistency[:, 0])
        return torch.cat(parts)

    def _all_views(self) -> Int[Tensor, " view"]:
        return torch.arange(len(self.images), device=self.images.device)

    def _choose(
        self,
        cameras: Cameras,
        size: tuple[int, int],
        count: int,
        own: Int[Tensor, " target"] | None = None,
    ) -> Int[Tensor, "target source"]:
        lindisp = self.model.config.rendering.lindisp
        targets, pool = SizedCameras(cameras, size), SizedCameras(self.cameras, self.size)
        return choose_sources(targets, pool, self.near_far, count, lindisp=lindisp, own=own)


@torch.no_grad()
def encode_views(
    model: VGGTNeRF,
    views: Views,
    near_far: Float[Tensor, " 2"],
    neighbours: Int[Tensor, "view source"],
) -> SceneMaps:
    """Encode each view together with its neighbours, in groups as large as in training."""
    parts = []
    for view, others in enumerate(neighbours.tolist()):
        group = views.take([view, *others])[None]
        scene = model.encode(group, near_far[None], refine=False)
        reliability = scene.prior.reliability
        parts.append(
            SceneMaps(
                fine=scene.features[:, 0].float(),
                coarse=scene.coarse_features[:, 0].float(),
                depth=scene.prior.depth[:, 0],
                confidence=scene.prior.confidence[:, 0] * reliability[:, None, None],
                reliability=reliability,
            )
        )
    return join(parts)
