"""What a rendering is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.vggt_nerf import Rendering


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms."""

    coarse_weight: float = 0.5
    """weight of the coarse pass's colour error, relative to the fine pass"""
    depth_weight: float = 0.0
    """weight of the depth error where the data has depth; 0 trains on colour alone"""

    def __post_init__(self) -> None:
        """Refuse negative weights."""
        if min(self.coarse_weight, self.depth_weight) < 0:
            raise ValueError("coarse_weight and depth_weight must not be negative")


@dataclass(frozen=True)
class TargetRays:
    """What the rays of a batch should have seen."""

    rgb: Float[Tensor, "batch ray 3"]
    depth: Float[Tensor, "batch ray"]
    """z-depth; 0 where unknown."""
    valid: Bool[Tensor, "batch ray"]


@dataclass(frozen=True)
class RenderingLosses:
    """Loss terms, before weighting, and their weighted sum."""

    fine: Float[Tensor, ""]
    coarse: Float[Tensor, ""]
    depth: Float[Tensor, ""]
    total: Float[Tensor, ""]


def rendering_losses(
    rendering: Rendering,
    truth: TargetRays,
    near_far: Float[Tensor, "batch 2"],
    config: LossConfig,
) -> RenderingLosses:
    """Mean squared colour errors of both passes and the relative depth error of the fine one.

    Depth errors are in units of the scene's depth range, so their weight means the same in every
    data set. Terms without a single valid ray are 0.
    """
    fine = _masked_mean((rendering.fine.rgb - truth.rgb).square().mean(-1), truth.valid)
    coarse = _masked_mean((rendering.coarse.rgb - truth.rgb).square().mean(-1), truth.valid)
    extent = (near_far[:, 1] - near_far[:, 0])[:, None]
    depth_error = (rendering.fine.depth - truth.depth).abs() / extent
    depth = _masked_mean(depth_error, truth.valid & (truth.depth > 0))
    total = fine + config.coarse_weight * coarse + config.depth_weight * depth
    return RenderingLosses(fine, coarse, depth, total)


def _masked_mean(
    values: Float[Tensor, "batch ray"], mask: Bool[Tensor, "batch ray"]
) -> Float[Tensor, ""]:
    # `where` and not a product: a value outside the mask may be infinite.
    return torch.where(mask, values, 0).sum() / mask.sum().clamp_min(1)
