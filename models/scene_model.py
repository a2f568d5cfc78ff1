"""A general model and one scene, whose feature maps are parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from datasets.views import Views
from models.cost_volume import FINE_CELLS
from models.depth_prior import DepthPrior, multiview_consistency
from models.depth_refinement import expected_surface
from models.projection import SceneFeatures
from models.source_selection import Frames, choose_sources
from models.vggt_nerf import RenderedImages, VGGTNeRF
from utils.cameras import Cameras, full_precision

ENCODED_ONCE = "model.pyramid."
"""Weights whose work is done once the maps are there."""


@dataclass(frozen=True)
class SceneMaps:
    """Every training view as ``encode`` sees it."""

    fine: Float[Tensor, "view channel map_height map_width"]
    coarse: Float[Tensor, "view coarse_channel coarse_height coarse_width"]
    depth: Float[Tensor, "view rows columns"]
    confidence: Float[Tensor, "view rows columns"]
    """The prior's own, times its reliability."""
    reliability: Float[Tensor, " view"]


class SceneModel(nn.Module):
    """Renders cameras of one scene, each from the training views that see best what it sees."""

    images: Tensor
    near_far: Tensor
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
        """Put a scene together of the general model and its training views.

        An image is rendered from ``num_sources`` of them, if there are as many.
        """
        super().__init__()
        self.model = model
        self.fine, self.coarse = nn.Parameter(maps.fine), nn.Parameter(maps.coarse)
        fixed = {
            "images": images,
            "intrinsics": cameras.intrinsics,
            "c2w": cameras.c2w,
            "near_far": near_far,
            "depth": maps.depth,
            "confidence": maps.confidence,
            "reliability": maps.reliability,
        }
        for name, value in fixed.items():
            self.register_buffer(name, value)
        self.num_sources = num_sources

    @property
    def cameras(self) -> Cameras:
        """Cameras of the training views."""
        return Cameras(self.get_buffer("intrinsics"), self.get_buffer("c2w"))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the training views."""
        return self.images.shape[-2], self.images.shape[-1]

    def sources_of_training_views(self, count: int) -> Int[Tensor, "view source"]:
        """Choose ``count`` sources for every training view, if there are as many, never itself."""
        count = min(count, len(self.images) - 1)
        return self._choose(self.cameras, self.size, count, own=self._every_view())

    @torch.no_grad()
    def refine_depth_prior(self) -> None:
        """Estimate the depth of every training view anew, by the cost volume as it is now."""
        neighbours = self.sources_of_training_views(self.num_sources - 1)
        groups = torch.cat([self._every_view()[:, None], neighbours], 1)
        found = []
        for view, group in enumerate(groups):
            camera, scene = self.cameras[view : view + 1], self.gather(group[None])
            volume = self.model.build_cost_volume(
                scene, camera, self.near_far[None], self.size, FINE_CELLS
            )
            found.append(expected_surface(volume))
        depth, mass = (torch.cat(parts) for parts in zip(*found, strict=True))
        # New tensors: a copy of an earlier state may still hold the old ones.
        self.depth, self.confidence = depth, mass * self._consistency(depth, mass, groups)
        self.reliability = torch.ones_like(self.reliability)

    def sources_of(self, cameras: Cameras, size: tuple[int, int]) -> Int[Tensor, "target source"]:
        """Choose the sources of any cameras ``(target,)``."""
        return self._choose(cameras, size, min(self.num_sources, len(self.images)))

    def gather(self, sources: Int[Tensor, "target source"]) -> SceneFeatures:
        """Return the sources of some targets, one scene of a batch for each."""
        reliability = self.reliability[sources].mean(1)
        confidence = self.confidence[sources] / reliability.clamp_min(1e-6)[:, None, None, None]
        return SceneFeatures(
            images=_take(self.images, sources),
            features=_take(self.fine, sources),
            coarse_features=_take(self.coarse, sources),
            cameras=self.cameras[sources],
            prior=DepthPrior(self.depth[sources], confidence, reliability),
        )

    @torch.no_grad()
    def render_images(
        self,
        cameras: Cameras,
        size: tuple[int, int],
        chunk: int = 8192,
        near_far: Float[Tensor, " 2"] | None = None,
    ) -> RenderedImages:
        """Render whole images of cameras ``(target,)``, one after the other.

        ``chunk`` rays are rendered in one go; ``near_far`` is by default the training views'.
        """
        cameras = cameras.to(self.images.device)
        bounds = (self.near_far if near_far is None else near_far.to(self.near_far))[None]
        parts = []
        for target, sources in enumerate(self.sources_of(cameras, size)):
            camera = cameras[target : target + 1]
            scene = self.gather(sources[None])
            parts.append(self.model.render_images(scene, camera, bounds, size, chunk))
        return RenderedImages(*_joined(parts))

    def scene_state(self) -> dict[str, Tensor]:
        """Return all that rendering needs, by name; shares memory with the model."""
        own = self.state_dict()
        return {name: value for name, value in own.items() if not name.startswith(ENCODED_ONCE)}

    def load_scene_state(self, state: dict[str, Tensor]) -> None:
        """Take what ``scene_state`` returned; other tensors are a ``RuntimeError``."""
        found = self.load_state_dict(state, strict=False)
        missing = [name for name in found.missing_keys if not name.startswith(ENCODED_ONCE)]
        if missing or found.unexpected_keys:
            raise RuntimeError(f"missing {missing[:3]}, unexpected {found.unexpected_keys[:3]}")

    def _consistency(
        self,
        depth: Float[Tensor, "view row column"],
        mass: Float[Tensor, "view row column"],
        groups: Int[Tensor, "view member"],
    ) -> Float[Tensor, "view row column"]:
        """Compare each view's depth with its neighbours', one group at a time: less memory."""
        parts = []
        for group in groups:
            view_mask = torch.ones_like(group, dtype=torch.bool)[None]
            with full_precision(depth):
                consistency = multiview_consistency(
                    *(depth[group][None], mass[group][None], self.cameras[group[None]]),
                    *(self.size, view_mask),
                )
            parts.append(consistency[:, 0])
        return torch.cat(parts)

    def _every_view(self) -> Int[Tensor, " view"]:
        return torch.arange(len(self.images), device=self.images.device)

    def _choose(
        self,
        cameras: Cameras,
        size: tuple[int, int],
        count: int,
        own: Int[Tensor, " target"] | None = None,
    ) -> Int[Tensor, "target source"]:
        lindisp = self.model.config.rendering.lindisp
        targets, pool = Frames(cameras, size), Frames(self.cameras, self.size)
        return choose_sources(targets, pool, self.near_far, count, lindisp=lindisp, own=own)


@torch.no_grad()
def encode_views(
    model: VGGTNeRF,
    views: Views,
    near_far: Float[Tensor, " 2"],
    neighbours: Int[Tensor, "view source"],
) -> SceneMaps:
    """Encode each view as the first of a group that its neighbours complete.

    So groups, and memory, are as large as in training, however many views there are.

    Args:
        model: With its backbone.
        views: ``(view,)``.
        near_far: Depth range.
        neighbours: Views to encode each view with.
    """
    parts = []
    for view, others in enumerate(neighbours.tolist()):
        group = views.take([view, *others])
        sources = Views(
            group.images[None], group.cameras[None], group.depths[None], group.masks[None]
        )
        scene = model.encode(sources, near_far[None], refine=False)
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
    return SceneMaps(*_joined(parts))


def _joined(parts: Sequence[SceneMaps] | Sequence[RenderedImages]) -> Iterator[Tensor]:
    """Join each field of several parts along the first axis."""
    return map(torch.cat, zip(*(vars(part).values() for part in parts), strict=True))


def _take(maps: Tensor, sources: Int[Tensor, "target source"]) -> Tensor:
    return maps.index_select(0, sources.flatten()).unflatten(0, sources.shape)
