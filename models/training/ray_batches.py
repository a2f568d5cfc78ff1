"""Random target pixels of a batch, with what they should render to."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from datasets.views import Views
from models.training.losses import TargetRays
from utils.rays import Rays, pixel_rays


def draw_target_rays(
    targets: Views, rays_per_scene: int, generator: torch.Generator
) -> tuple[Rays, TargetRays]:
    """Draw pixels uniformly from all targets of each scene, the same number from each target.

    Args:
        targets: Views ``(batch, target)``.
        rays_per_scene: A multiple of the number of targets.
        generator: On the device of the views.
    """
    batch, count = targets.images.shape[:2]
    height, width = targets.size
    shape = (batch, count, rays_per_scene // count)
    pick = torch.randint(height * width, shape, generator=generator, device=targets.images.device)
    centers = torch.stack([pick % width, pick // width], -1).to(targets.images.dtype) + 0.5
    rays = pixel_rays(targets.cameras, centers)
    return (
        Rays(rays.origins.flatten(1, 2), rays.directions.flatten(1, 2)),
        TargetRays(
            rgb=_gather(rearrange(targets.images, "b t c h w -> b t (h w) c"), pick),
            depth=_gather(rearrange(targets.depths, "b t h w -> b t (h w) 1"), pick)[..., 0],
            valid=_gather(rearrange(targets.masks, "b t h w -> b t (h w) 1"), pick)[..., 0],
        ),
    )


def _gather(
    values: Float[Tensor, "batch target pixel channel"] | Tensor,
    pick: Int[Tensor, "batch target ray"],
) -> Tensor:
    index = pick[..., None].expand(-1, -1, -1, values.shape[-1])
    return values.gather(2, index).flatten(1, 2)
