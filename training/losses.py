"""Losses of renderings."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from kornia.losses import ssim_loss
from torch import Tensor

from evaluation.scores import ImageDistance
from models.ray_sampling import DepthPlanes, interpolate
from models.single_rays import Rendering
from training.config import LossConfig
from training.ray_batches import TargetRays
from utils.cameras import full_precision

SSIM_WINDOW = 7


def rendering_losses(
    rendering: Rendering,
    truth: TargetRays,
    near_far: Float[Tensor, "batch 2"],
    config: LossConfig,
    lindisp: bool = False,
    perceptual: ImageDistance | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Compare a rendering ``(batch, target, ray)``, with its coarse pass, with the truth.

    Returns fine, coarse, depth, planes, ssim and lpips before weighting, and their weighted total.
    Terms without a single valid ray or patch are 0, and so are SSIM and LPIPS when their weight is.
    The unit of depth errors is a scene's depth range.
    """
    coarse = rendering.coarse
    if coarse is None:
        raise ValueError("training needs the coarse pass")
    known = truth.valid & (truth.depth > 0)
    extent = near_far.diff(dim=1)[..., None]
    depth_error = (rendering.fine.depth - truth.depth).abs() / extent
    planes = DepthPlanes(near_far, coarse.weights.shape[-1], lindisp)
    terms = {
        "fine": masked_mean((rendering.fine.rgb - truth.rgb).square().mean(-1), truth.valid),
        "coarse": masked_mean((coarse.rgb - truth.rgb).square().mean(-1), truth.valid),
        "depth": masked_mean(depth_error, known),
        "planes": plane_entropy(coarse.weights, truth.depth, known, planes),
        **dict.fromkeys(("ssim", "lpips"), coarse.rgb.new_zeros(())),
    }
    if truth.num_patches:
        ours, theirs = (truth.patches(x.float()) for x in (rendering.fine.rgb, truth.rgb))
        whole = truth.whole_patches()
        if config.ssim_weight and truth.patch_size >= SSIM_WINDOW:
            terms["ssim"] = masked_mean(dissimilarity(ours, theirs).mean((1, 2)), whole)
        if config.lpips_weight and perceptual is not None:
            terms["lpips"] = masked_mean(perceptual(ours, theirs), whole)
    return {**terms, "total": weighted_total(terms, config)}


def weighted_total(terms: dict[str, Float[Tensor, ""]], config: LossConfig) -> Float[Tensor, ""]:
    """Sum loss terms by their weights; that of ``fine`` is 1."""
    weights = {"fine": 1.0, **{name: getattr(config, f"{name}_weight") for name in list(terms)[1:]}}
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def dissimilarity(
    ours: Float[Tensor, "n 3 height width"], theirs: Float[Tensor, "n 3 height width"]
) -> Float[Tensor, "n inner_height inner_width"]:
    """Return (1 - SSIM) / 2 around every pixel, where a window fits."""
    with full_precision(ours):
        values = ssim_loss(ours, theirs, SSIM_WINDOW, reduction="none", padding="valid")
    return values.mean(1)


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
    return masked_mean(-pair[..., 0], known)


def proposal_loss(
    rendering: Rendering,
    planes: DepthPlanes,
    valid: Bool[Tensor, "batch target ray"],
    weight: float,
) -> Float[Tensor, ""]:
    """Return the weighted cross-entropy of the cost volume's weights with the rendering's.

    Samples are drawn without gradients: nothing else teaches the volume where surfaces are (as
    with the proposals of mip-NeRF 360, Barron et al. 2022).
    """
    edges = planes.coordinates(planes.edges())[:, None, None]
    edges = edges.expand(*rendering.t_edges.shape[:-1], -1)
    target = rebin(rendering.t_edges, rendering.fine.weights.detach(), edges)
    proposal = rendering.plane_weights + 1e-6
    logs = (proposal / proposal.sum(-1, keepdim=True)).log()
    return masked_mean(-weight * (target * logs).sum(-1), valid)


def rebin(
    t_edges: Float[Tensor, "*batch edge"],
    weights: Float[Tensor, "*batch sample"],
    new_edges: Float[Tensor, "*batch new_edge"],
) -> Float[Tensor, "*batch new_sample"]:
    """Sum weights over other bins of the same range, as if each was spread evenly over its own."""
    mass = torch.cat([torch.zeros_like(weights[..., :1]), weights.cumsum(-1)], -1)
    return interpolate(new_edges, t_edges, mass).diff(dim=-1)


def masked_mean(values: Float[Tensor, "*ray"], mask: Bool[Tensor, "*ray"]) -> Float[Tensor, ""]:
    """Return the mean over a mask; 0 if it is empty."""
    # `where` and not a product: a value outside the mask may be infinite.
    return torch.where(mask, values, 0).sum() / mask.sum().clamp_min(1)
