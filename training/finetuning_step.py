"""One step of fine-tuning: rays of some training views, each rendered from the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.views import Views
from models.scene_model import SceneModel
from models.vggt_nerf import Rendering
from models.volume_rendering import Composite
from training.losses import LossConfig, rendering_losses
from training.ray_batches import RayBatchConfig, TargetRays, draw_target_rays


@dataclass(frozen=True)
class SceneLossConfig:
    """Weights of what only fine-tuning minimises."""

    guide_weight: float = 0.001
    """weight of the cross-entropy between where rays are sampled and where their light came from"""

    def __post_init__(self) -> None:
        """Refuse negative weights."""
        if self.guide_weight < 0:
            raise ValueError(f"guide_weight={self.guide_weight} must not be negative")


@dataclass(frozen=True)
class StepSettings:
    """What a step draws and minimises."""

    rays: RayBatchConfig
    loss: LossConfig
    scene_loss: SceneLossConfig
    rays_per_step: int
    targets_per_step: int
    sources_per_step: int
    """Views that a training view is rendered from."""


@dataclass(frozen=True)
class StepLosses:
    """Of one step, on the device."""

    total: Float[Tensor, ""]
    fine: Float[Tensor, ""]
    """Mean squared error of the rendering."""


def step_losses(
    scene: SceneModel,
    masks: Tensor,
    sources: Int[Tensor, "view source"],
    settings: StepSettings,
    generator: torch.Generator,
) -> StepLosses:
    """Draw training views and rays, render and compare. Never waits for the device.

    Args:
        scene: What is tuned.
        masks: Pixels of the training views that count.
        sources: Views that each training view may be rendered from.
        settings: What to draw and to minimise.
        generator: On the device of the scene.
    """
    count = min(settings.targets_per_step, len(sources))
    order = torch.rand(len(sources), generator=generator, device=masks.device).argsort()[:count]
    targets = _targets(scene, masks, order)
    drawn = draw_target_rays(targets, settings.rays_per_step // count, settings.rays, generator)
    near_far = scene.near_far.expand(count, 2)
    drawn_sources = draw_sources(
        sources.index_select(0, order), settings.sources_per_step, generator
    )
    features = scene.gather(drawn_sources)
    volume = scene.model.build_cost_volume(features, targets.cameras[:, 0], near_far, targets.size)
    rendering = scene.model.render(
        *(features, volume, drawn.pixels[:, 0], generator),
        with_coarse=True,
    )
    lindisp = scene.model.config.rendering.lindisp
    losses = rendering_losses(_of_targets(rendering), drawn, near_far, settings.loss, lindisp)
    borders = volume.planes.coordinates(volume.planes.edges())
    total = losses.total + _scene_loss(rendering, borders, drawn, settings.scene_loss)
    return StepLosses(total, losses.fine.detach())


def draw_sources(
    candidates: Int[Tensor, "target candidate"], count: int, generator: torch.Generator
) -> Int[Tensor, "target source"]:
    """Draw ``count`` of each target's candidates: what is learnt then suits any choice of them."""
    if candidates.shape[1] <= count:
        return candidates
    ranks = torch.rand(candidates.shape, generator=generator, device=candidates.device)
    return candidates.gather(1, ranks.argsort(1)[:, :count])


def _targets(scene: SceneModel, masks: Tensor, order: Int[Tensor, " target"]) -> Views:
    images = scene.images.index_select(0, order)[:, None]
    return Views(
        images=images,
        cameras=scene.cameras[order[:, None]],
        depths=images.new_zeros(()).expand(len(order), 1, *scene.size),
        masks=masks.index_select(0, order)[:, None],
    )


def _scene_loss(
    rendering: Rendering,
    borders: Float[Tensor, "target plane_edge"],
    drawn: TargetRays,
    config: SceneLossConfig,
) -> Float[Tensor, ""]:
    """Tie sampling to what it finds, and teach the scene's own colours, if it has any.

    Samples are drawn without gradients: without the first term the volume, whose other outputs
    learn, would forget where surfaces are (as with the proposals of mip-NeRF 360, Barron et al.
    2022).
    """
    valid = drawn.valid[:, 0]
    shares = mass_between(rendering.t_edges, rendering.fine.weights.detach(), borders)
    guided = rendering.plane_weights + 1e-6
    logs = (guided / guided.sum(-1, keepdim=True)).log()
    terms = -config.guide_weight * (shares * logs).sum(-1)
    return torch.where(valid, terms, 0).sum() / valid.sum().clamp_min(1)


def mass_between(
    t_edges: Float[Tensor, "target ray edge"],
    weights: Float[Tensor, "target ray sample"],
    borders: Float[Tensor, "target plane_edge"],
) -> Float[Tensor, "target ray plane"]:
    """Sum weights of bins anew over other bins, as if each was spread evenly over its bin.

    Args:
        t_edges: Borders of the bins, ascending.
        weights: Of these bins.
        borders: Of the new bins, the same on every ray and over the same range.
    """
    mass = torch.cat([torch.zeros_like(weights[..., :1]), weights.cumsum(-1)], -1)
    wanted = borders[:, None].expand(-1, weights.shape[1], -1).contiguous()
    above = torch.searchsorted(t_edges.contiguous(), wanted, right=True)
    above = above.clamp(1, t_edges.shape[-1] - 1)
    start, end = t_edges.gather(-1, above - 1), t_edges.gather(-1, above)
    low, high = mass.gather(-1, above - 1), mass.gather(-1, above)
    share = ((wanted - start) / (end - start).clamp_min(1e-12)).clamp(0, 1)
    return (low + share * (high - low)).diff(dim=-1)


def _of_targets(rendering: Rendering) -> Rendering:
    """Give every field the axis of targets of a scene, of which a batch entry here has one."""
    coarse = rendering.coarse
    return Rendering(
        fine=_one_target(rendering.fine),
        t_edges=rendering.t_edges[:, None],
        plane_weights=rendering.plane_weights[:, None],
        coarse=None if coarse is None else _one_target(coarse),
    )


def _one_target(part: Composite) -> Composite:
    return Composite(**{name: value[:, None] for name, value in vars(part).items()})
