"""Losses of rendered windows, pixels and cost-volume weights."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from kornia.losses import ssim_loss
from torch import Tensor

from datasets.views import Views
from evaluation.scores import ImageDistance
from models.bundles import WindowRendering, composite_bins
from models.depth_prior import SHRINK
from models.projection import SceneFeatures
from models.ray_sampling import RayBins
from models.vggt_nerf import VGGTNeRF
from training.config import LossConfig
from training.ray_batches import WindowTruth, draw_window, pixel_colors
from utils.cameras import full_precision

ERROR_SCALE = 0.004
"""Squared error (24 dB) beyond which colour errors count logarithmically."""
_SSIM_WINDOW = 7


def masked_mean(values: Float[Tensor, "*ray"], mask: Bool[Tensor, "*ray"]) -> Float[Tensor, ""]:
    """Return the mean over a mask; 0 if it is empty."""
    # Not a product: values outside the mask may be infinite.
    return torch.where(mask, values, 0).sum() / mask.sum().clamp_min(1)


def log_bounded(errors: Float[Tensor, "*batch"], scale: float) -> Float[Tensor, "*batch"]:
    """Return ``scale * log(1 + errors / scale)``: linear below and logarithmic above ``scale``."""
    return scale * torch.log1p(errors / scale)


def pixel_error(
    rgb: Float[Tensor, "batch pixel 3"], views: Views, indices: Int[Tensor, "batch pixel"]
) -> Float[Tensor, ""]:
    """Return the mean squared colour error over the pixels inside the mask."""
    error = (rgb - pixel_colors(views, indices)).square().mean(-1)
    return masked_mean(error, views.masks.flatten(1).gather(1, indices))


def window_losses(
    scene: SceneFeatures,
    rendering: WindowRendering,
    truth: WindowTruth,
    near_far: Float[Tensor, "batch 2"],
    config: LossConfig,
    perceptual: ImageDistance | None = None,
    background: float = 0.0,
) -> dict[str, Float[Tensor, ""]]:
    """Return the unweighted loss terms of a rendered window and their weighted ``total``.

    ``coarse`` and ``planes`` are means over the levels of the cost volume. In the total, the
    colour terms are replaced by ``relative_error``: otherwise windows that no source sees would
    dominate.
    """
    composite = rendering.bundles.composite
    known = truth.bundle_valid & (truth.depth > 0)
    depth_error = (composite.depth - truth.depth).abs() / near_far.diff(dim=1)
    far, mean_rgb = near_far[:, 1:], truth.bundle_rgb.unflatten(-1, (-1, 3)).mean(-2)
    coarse, planes = [], []
    for level in rendering.levels:
        color = composite_bins(scene, rendering.rays, level.t, level.weights, far, background).rgb
        coarse.append((color - mean_rgb).square().mean(-1))
        planes.append(bin_entropy(level, truth.depth, known))
    composited = (composite.rgb - truth.bundle_rgb).square().mean(-1)
    errors = {
        "fine": ((rendering.rgb - truth.rgb).square().mean(1), truth.valid),
        "composited": (composited, truth.bundle_valid),
        "coarse": (torch.stack(coarse).mean(0), truth.bundle_valid),
    }
    terms = {
        **{name: masked_mean(*error) for name, error in errors.items()},
        "depth": masked_mean(depth_error, known),
        "planes": torch.stack(planes).mean(),
        **_image_terms(rendering.rgb, truth, config, perceptual),
    }
    summands = {**terms, **{name: relative_error(*error) for name, error in errors.items()}}
    weights = {"fine": 1.0, **{n: getattr(config, f"{n}_weight") for n in terms if n != "fine"}}
    total = torch.stack([weights[name] * term for name, term in summands.items()]).sum()
    return {**terms, "total": total}


def _image_terms(
    rgb: Float[Tensor, "batch 3 height width"],
    truth: WindowTruth,
    config: LossConfig,
    perceptual: ImageDistance | None,
) -> dict[str, Float[Tensor, ""]]:
    """Return the terms that compare neighbourhoods of pixels; 0 for those that are not used."""
    terms = {"ssim": rgb.new_zeros(()), "lpips": rgb.new_zeros(())}
    if config.ssim_weight and min(rgb.shape[-2:]) >= _SSIM_WINDOW:
        inner = slice(_SSIM_WINDOW // 2, -(_SSIM_WINDOW // 2))
        with full_precision(rgb):
            values = ssim_loss(rgb, truth.rgb, _SSIM_WINDOW, reduction="none", padding="valid")
        terms["ssim"] = masked_mean(values.mean(1), truth.valid[:, inner, inner])
    if config.lpips_weight and perceptual is not None:
        terms["lpips"] = masked_mean(perceptual(rgb, truth.rgb), truth.valid.flatten(1).all(1))
    return terms


def relative_error(
    squared: Float[Tensor, "batch ..."], mask: Bool[Tensor, "batch ..."]
) -> Float[Tensor, ""]:
    """Return the mean over windows of ``log_bounded`` of their mean squared error.

    Large errors count by their ratio, as in the mean PSNR of images: halving the error gains the
    same in easy and difficult windows.
    """
    squared, mask = squared.flatten(1), mask.flatten(1)
    count = mask.sum(1)
    mean = torch.where(mask, squared, 0).sum(1) / count.clamp_min(1)
    return masked_mean(log_bounded(mean, ERROR_SCALE), count > 0)


def source_entropy(
    model: VGGTNeRF,
    scene: SceneFeatures,
    sources: Views,
    near_far: Float[Tensor, "batch 2"],
    num_pixels: int,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Return the cross-entropy of the cost volume of one source ``(batch,)`` with its true depth.

    It trains the depth refinement, so ``scene`` is not refined.
    """
    volume = model.build_cost_volume(scene, sources.cameras, near_far, sources.size)
    window, truth = draw_window(sources, num_pixels, SHRINK, generator)
    levels = model.find_bins(scene, volume, window, generator)
    known = truth.bundle_valid & (truth.depth > 0)
    return torch.stack([bin_entropy(level, truth.depth, known) for level in levels]).mean()


def bin_entropy(
    level: RayBins, depth: Float[Tensor, "batch ray"], known: Bool[Tensor, "batch ray"]
) -> Float[Tensor, ""]:
    """Return the cross-entropy of bin weights with the true depth.

    The target is interpolated linearly between the two bin centres next to the depth.
    """
    last = level.t.shape[-1] - 1
    t = level.t.detach().contiguous()
    inside = (depth > level.t_edges[..., 0]) & (depth < level.t_edges[..., -1])
    above = torch.searchsorted(t, depth[..., None].contiguous()).clamp(1, last)
    low, high = t.gather(-1, above - 1), t.gather(-1, above)
    share = ((depth[..., None] - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
    logs = (level.weights.float() + 1e-5).log()
    pair = logs.gather(-1, above - 1) * (1 - share) + logs.gather(-1, above) * share
    return masked_mean(-pair[..., 0], known & inside)


def level_guidance(
    rendering: WindowRendering, valid: Bool[Tensor, "batch bundle"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the cost volume's bin weights with the rendering weights.

    Samples are drawn without gradients, so without true depth this loss alone trains the volume,
    like the proposal loss of mip-NeRF 360 (Barron et al. 2022).
    """
    weights = rendering.bundles.composite.weights.detach()
    terms = []
    for level in rendering.levels:
        inner = level.t_edges[..., 1:-1].contiguous()
        bins = torch.searchsorted(inner, rendering.bundles.t.contiguous())
        target = torch.zeros_like(level.weights).scatter_add(-1, bins, weights)
        logs = (level.weights + 1e-6).log()
        terms.append(masked_mean(-(target * logs).sum(-1), valid))
    return torch.stack(terms).mean()
