"""What a rendering is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from kornia.losses import ssim_loss
from torch import Tensor

from models.ray_sampling import DepthPlanes
from models.vggt_nerf import Rendering
from training.ray_batches import TargetRays

SSIM_WINDOW = 7

PatchDistance = Callable[
    [Float[Tensor, "patch 3 side side"], Float[Tensor, "patch 3 side side"]],
    Float[Tensor, " patch"],
]
"""Compares images in [0, 1], differentiably."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms."""

    coarse_weight: float = 0.2
    """weight of the coarse volume's colour error, relative to the fine pass"""
    depth_weight: float = 0.05
    """weight of the fine pass's depth error, in units of the depth range, where there is depth"""
    plane_weight: float = 0.01
    """weight of the cross-entropy of the coarse volume's planes with the true depth"""
    ssim_weight: float = 0.02
    """weight of the patches' dissimilarity, (1 - SSIM) / 2"""
    lpips_weight: float = 0.0
    """weight of the patches' LPIPS; needs VGG-16's weights on the machine"""
    distortion_weight: float = 0.0
    """weight that pulls each ray's mass together (mip-NeRF 360)"""

    def __post_init__(self) -> None:
        """Refuse negative weights."""
        for name, value in vars(self).items():
            if value < 0:
                raise ValueError(f"{name}={value} must not be negative")

    def by_term(self) -> dict[str, float]:
        """Return the weight of every term."""
        return {
            "fine": 1.0,
            "coarse": self.coarse_weight,
            "depth": self.depth_weight,
            "planes": self.plane_weight,
            "ssim": self.ssim_weight,
            "lpips": self.lpips_weight,
            "distortion": self.distortion_weight,
        }


@dataclass(frozen=True)
class RenderingLosses:
    """Loss terms, before weighting, and their weighted sum."""

    fine: Float[Tensor, ""]
    coarse: Float[Tensor, ""]
    depth: Float[Tensor, ""]
    planes: Float[Tensor, ""]
    ssim: Float[Tensor, ""]
    lpips: Float[Tensor, ""]
    distortion: Float[Tensor, ""]
    total: Float[Tensor, ""]


def rendering_losses(
    rendering: Rendering,
    truth: TargetRays,
    near_far: Float[Tensor, "batch 2"],
    config: LossConfig,
    lindisp: bool = False,
    perceptual: PatchDistance | None = None,
) -> RenderingLosses:
    """Compare a rendering with the truth.

    Depth errors are in units of the scene's depth range, so their weight means the same in every
    data set. Terms without a single valid ray or patch are 0, and so are SSIM and LPIPS when their
    weight is.

    Args:
        rendering: Axes ``(batch, target, ray)``, with the coarse pass.
        truth: Of the same rays.
        near_far: Depth range of each scene.
        config: Weights.
        lindisp: Whether the coarse planes are even in inverse depth.
        perceptual: LPIPS, if its weights are there.
    """
    coarse = rendering.coarse
    if coarse is None:
        raise ValueError("training needs the coarse pass")
    known = truth.valid & (truth.depth > 0)
    extent = (near_far[:, 1] - near_far[:, 0])[:, None, None]
    depth_error = (rendering.fine.depth - truth.depth).abs() / extent
    planes = DepthPlanes(near_far, coarse.weights.shape[-1], lindisp)
    spread = distortion(rendering.fine.weights, rendering.t_edges)
    terms = {
        "fine": _color_error(rendering.fine.rgb, truth),
        "coarse": _color_error(coarse.rgb, truth),
        "depth": _masked_mean(depth_error, known),
        "planes": plane_entropy(coarse.weights, truth.depth, known, planes),
        "distortion": _masked_mean(spread, truth.valid),
        **_patch_terms(rendering.fine.rgb, truth, config, perceptual),
    }
    weighted = [weight * terms[name] for name, weight in config.by_term().items()]
    return RenderingLosses(**terms, total=torch.stack(weighted).sum())


def plane_entropy(
    weights: Float[Tensor, "batch target ray plane"],
    depth: Float[Tensor, "batch target ray"],
    known: Bool[Tensor, "batch target ray"],
    planes: DepthPlanes,
) -> Float[Tensor, ""]:
    """Return the cross-entropy with the two planes that a true depth lies between."""
    near = planes.near_far[:, :1, None]
    place = planes.coordinates(torch.where(known, depth, near)) * planes.count - 0.5
    known = known & (place > -1) & (place < planes.count)
    place = place.clamp(0, planes.count - 1)
    lower = place.floor().clamp(max=planes.count - 2)
    share = (place - lower)[..., None]
    index = lower.long()[..., None]
    logs = (weights.float() + 1e-5).log()
    pair = logs.gather(-1, index) * (1 - share) + logs.gather(-1, index + 1) * share
    return _masked_mean(-pair[..., 0], known)


def distortion(
    weights: Float[Tensor, "*batch sample"], edges: Float[Tensor, "*batch edge"]
) -> Float[Tensor, "*batch"]:
    """Return how far each ray's mass is spread (mip-NeRF 360, Barron et al. 2022, equation 15)."""
    middles = (edges[..., 1:] + edges[..., :-1]) / 2
    gaps = (middles[..., :, None] - middles[..., None, :]).abs()
    between = (weights[..., :, None] * weights[..., None, :] * gaps).sum((-2, -1))
    return between + (weights.square() * edges.diff(dim=-1)).sum(-1) / 3


def _patch_terms(
    rgb: Float[Tensor, "batch target ray 3"],
    truth: TargetRays,
    config: LossConfig,
    perceptual: PatchDistance | None,
) -> dict[str, Float[Tensor, ""]]:
    zero = rgb.new_zeros(())
    terms = {"ssim": zero, "lpips": zero}
    if not truth.num_patches:
        return terms
    ours, theirs = truth.patches(rgb.float()), truth.patches(truth.rgb.float())
    whole = truth.whole_patches()
    if config.ssim_weight and truth.patch_size >= SSIM_WINDOW:
        values = ssim_loss(ours, theirs, SSIM_WINDOW, reduction="none", padding="valid")
        terms["ssim"] = _masked_mean(values.mean((1, 2, 3)), whole)
    if config.lpips_weight and perceptual is not None:
        terms["lpips"] = _masked_mean(perceptual(ours, theirs), whole)
    return terms


def _color_error(rgb: Float[Tensor, "batch target ray 3"], truth: TargetRays) -> Float[Tensor, ""]:
    return _masked_mean((rgb - truth.rgb).square().mean(-1), truth.valid)


def _masked_mean(values: Float[Tensor, "*ray"], mask: Bool[Tensor, "*ray"]) -> Float[Tensor, ""]:
    # `where` and not a product: a value outside the mask may be infinite.
    return torch.where(mask, values, 0).sum() / mask.sum().clamp_min(1)
