"""A general model and one scene, whose feature maps are parameters; which views it reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from datasets.views import Views, join
from models.depth_prior import DepthPrior, multiview_consistency
from models.projection import SceneFeatures
from models.ray_sampling import DepthPlanes
from models.tunable_scene import TunableScene
from models.vggt_nerf import VGGTNeRF
from utils.cameras import Cameras, cell_grid, full_precision, pixel_rays, project, view_grid

_CELLS, _DEPTHS = (6, 8), 6
_ANGLE = 0.35
"""Angle in radians, between two views of a point, that gives one the weight 1/e for the other."""
_SHARE = 0.3
"""Share of a point that a perfect view covers; with 0.7 fern was 0.2 dB worse, DTU no better."""
_TIE = 1e-3
"""Weight of the distance between cameras, which decides where no view sees anything."""


@dataclass(frozen=True)
class SceneMaps:
    """Every training view as ``encode`` sees it."""

    fine: Float[Tensor, "view channel map_height map_width"]
    coarse: Float[Tensor, "view coarse_channel coarse_height coarse_width"]
    depth: Float[Tensor, "view rows columns"]
    confidence: Float[Tensor, "view rows columns"]
    """The prior's own, times its reliability."""
    reliability: Float[Tensor, " view"]


class SceneModel(TunableScene[VGGTNeRF]):
    """Renders cameras of one scene, each from the training views that see best what it sees."""

    ENCODED_ONCE = ("model.pyramid.",)
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
        """Render from ``num_sources`` of the training views, if there are as many."""
        super().__init__(model, images, cameras, near_far, num_sources)
        self.fine, self.coarse = nn.Parameter(maps.fine), nn.Parameter(maps.coarse)
        for name in ("depth", "confidence", "reliability"):
            self.register_buffer(name, getattr(maps, name))

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
            found.append(self.model.find_surface(scene, camera, self.near_far[None], self.size))
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
            group = group[None]
            with full_precision(depth):
                consistency = multiview_consistency(
                    depth[group], mass[group], self.cameras[group], self.size, view_mask
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
    """Encode each view together with its neighbours: groups are as large as in training."""
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


def _take(maps: Tensor, sources: Int[Tensor, "target source"]) -> Tensor:
    return maps.index_select(0, sources.flatten()).unflatten(0, sources.shape)


@dataclass(frozen=True)
class Frames:
    """Cameras whose images are of one size."""

    cameras: Cameras
    """Batch axes ``(view,)``."""
    size: tuple[int, int]
    """Height and width."""


@torch.no_grad()
def choose_sources(
    targets: Frames,
    pool: Frames,
    near_far: Float[Tensor, " 2"],
    count: int,
    *,
    lindisp: bool = False,
    own: Int[Tensor, " target"] | None = None,
) -> Int[Tensor, "target source"]:
    """Choose for each target ``count`` views of the pool that together cover best what it sees.

    Each view covers points of the target's frustum that it sees, the better the more alike angle
    and distance are. Views are chosen greedily, each for what it adds to those before it: an image
    whose halves have different neighbours gets both. ``own`` names for each target the view that it
    is, which is not chosen. Never waits for the device.
    """
    chosen = []
    for target in range(len(targets.cameras.c2w)):
        one = Frames(targets.cameras[target : target + 1], targets.size)
        coverage = _coverage(one, pool, near_far, lindisp)
        if own is not None:
            itself = torch.arange(len(coverage), device=coverage.device) == own[target]
            coverage = torch.where(itself[:, None], -1.0, coverage)
        missing, order = torch.ones_like(coverage[0]), []
        for _ in range(count):
            best = (coverage * missing).sum(-1).argmax()
            order.append(best)
            covered = coverage.index_select(0, best[None])[0]
            missing = missing * (1 - _SHARE * covered)
            taken = torch.arange(len(coverage), device=coverage.device) == best
            coverage = torch.where(taken[:, None], -1.0, coverage)
        chosen.append(torch.stack(order))
    return torch.stack(chosen)


def _coverage(
    target: Frames, pool: Frames, near_far: Float[Tensor, " 2"], lindisp: bool
) -> Float[Tensor, "view point"]:
    """Return how well each view of the pool covers points that the camera sees."""
    rays = pixel_rays(target.cameras, cell_grid(_CELLS, target.size, near_far.device))
    planes = DepthPlanes(near_far[None], _DEPTHS, lindisp)
    depths = planes.centers()[:, None].expand(-1, _CELLS[0] * _CELLS[1], -1)
    points = rays.at(depths).reshape(-1, 3)
    pixels, z = project(points, pool.cameras)
    seen = (view_grid(pixels, pool.size).abs() <= 1).all(-1) & (z > 0)
    theirs, ours = points - pool.cameras.centers[:, None], points - target.cameras.centers
    distance, reference = theirs.norm(dim=-1), ours.norm(dim=-1)
    cosine = (theirs * ours).sum(-1) / (distance * reference).clamp_min(1e-12)
    angle = torch.acos(cosine.clamp(-1, 1))
    ratio = (distance / reference.clamp_min(1e-12)).clamp(1e-3, 1e3)
    weight = torch.exp(-angle / _ANGLE) * torch.minimum(ratio, 1 / ratio)
    apart = (pool.cameras.centers - target.cameras.centers).norm(dim=-1, keepdim=True) / near_far[1]
    return seen * weight + _TIE / (1 + apart)
