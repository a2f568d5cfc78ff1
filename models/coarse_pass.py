"""What the volume's planes alone would render: a second opinion that trains them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from models.aggregation import view_statistics
from models.cost_volume import CostVolume
from models.projection import SceneFeatures, project_to_sources, read_maps
from models.volume_rendering import Composite
from utils.rays import Rays


def coarse_composite(
    scene: SceneFeatures,
    target: CostVolume,
    rays: Rays,
    weights: Float[Tensor, "batch ray plane"],
    background: float = 0.0,
) -> Composite:
    """Composite the mean source colour at every plane.

    Colours are read at full resolution, so that a sharp image is rewarded for the right depth.

    Args:
        scene: The encoded sources.
        target: The volume that the weights are from.
        rays: Rays of the target.
        weights: Shares of the planes on these rays.
        background: Grey value of the light that comes from nowhere.
    """
    t = target.planes.centers()[:, None].expand_as(weights)
    where = project_to_sources(scene, rays, t, pad=0.0)
    colors = view_statistics(read_maps(scene.images, where), where.valid).mean
    # Where no view sees a plane, the scene's average is the best guess.
    average = _average_color(scene)[:, None, None]
    colors = torch.where(where.valid.any(1)[..., None], colors, average)
    opacity = weights.sum(-1)
    remaining = 1 - opacity
    far = target.planes.near_far[:, 1:]
    return Composite(
        rgb=(weights[..., None] * colors).sum(-2) + remaining[..., None] * background,
        depth=(weights * t).sum(-1) + remaining * far,
        opacity=opacity,
        weights=weights,
    )


def _average_color(scene: SceneFeatures) -> Float[Tensor, "batch 3"]:
    images = scene.images.float()
    if scene.view_mask is None:
        return images.mean((1, 3, 4))
    shares = scene.view_mask / scene.view_mask.sum(1, keepdim=True)
    return (images.mean((3, 4)) * shares[..., None]).sum(1)
