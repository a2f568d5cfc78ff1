"""What a step trains on: random windows of the targets, and their losses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datasets.views import Views
from evaluation.scores import ImageDistance
from models.bundles import Window, WindowRendering, composite_bins
from models.depth_prior import SHRINK
from models.projection import SceneFeatures
from models.ray_sampling import RayBins
from models.vggt_nerf import VGGTNeRF
from training.config import LossConfig
from training.losses import SSIM_WINDOW, dissimilarity, masked_mean, weighted_total

ERROR_SCALE = 0.004
"""Squared error, 24 dB, from which on colour errors count by their logarithm."""


@dataclass(frozen=True)
class WindowTruth:
    """What windows of the targets show."""

    rgb: Float[Tensor, "batch 3 height width"]
    valid: Bool[Tensor, "batch height width"]
    depth: Float[Tensor, "batch bundle"]
    """z-depth of each bundle, the second smallest of four pixels; 0 where one is unknown."""
    bundle_rgb: Float[Tensor, "batch bundle channel"]
    """Colours of the pixels of each bundle, one after the other."""
    bundle_valid: Bool[Tensor, "batch bundle"]


def draw_window(
    targets: Views, num_pixels: int, side: int, generator: torch.Generator
) -> tuple[Window, WindowTruth]:
    """Draw a window of about ``num_pixels`` in every target ``(batch,)``, and read what it shows.

    It is as square as the images permit.
    """
    height, width = targets.size
    rows = max(min(height, math.isqrt(num_pixels)) // side, 1)
    columns = max(min(width // side, num_pixels // (rows * side**2)), 1)
    device, batch = targets.images.device, len(targets.images)
    corners = [
        torch.randint(last + 1, (batch,), generator=generator, device=device)
        for last in (width - columns * side, height - rows * side)
    ]
    window = Window(torch.stack(corners, -1), (rows, columns), side)
    return window, read_window(targets, window)


def read_window(targets: Views, window: Window) -> WindowTruth:
    """Read what a window of every target shows."""
    rgb = window.cut(targets.images)
    depth = window.cut(targets.depths[:, None])
    valid = window.cut(targets.masks[:, None])
    depths = window.to_bundles(torch.where(valid, depth, 0))
    known = (depths > 0).all(-1)
    return WindowTruth(
        rgb=rgb,
        valid=valid[:, 0],
        depth=torch.where(known, depths.median(-1).values, 0),
        bundle_rgb=window.to_bundles(rgb),
        bundle_valid=window.to_bundles(valid).all(-1),
    )


def window_losses(
    scene: SceneFeatures,
    rendering: WindowRendering,
    truth: WindowTruth,
    near_far: Float[Tensor, "batch 2"],
    config: LossConfig,
    perceptual: ImageDistance | None = None,
    background: float = 0.0,
) -> dict[str, Float[Tensor, ""]]:
    """Compare a rendered window with the truth.

    Returns fine, composited, coarse, depth, planes, ssim and lpips before weighting, and their
    weighted total. ``coarse`` and ``planes`` are means over the levels of the cost volume. In the
    total, colours count by ``relative_error`` of each window: otherwise windows that show what no
    source sees would outweigh all that can be learned from the others.
    """
    composite = rendering.bundles.composite
    known = truth.bundle_valid & (truth.depth > 0)
    depth_error = (composite.depth - truth.depth).abs() / near_far.diff(dim=1)
    zero = rendering.rgb.new_zeros(())
    far, middle = near_far[:, 1:], truth.bundle_rgb.unflatten(-1, (-1, 3)).mean(-2)
    coarse, planes = [], []
    for level in rendering.levels:
        shown = composite_bins(scene, rendering.rays, level.t, level.weights, far, background)
        coarse.append((shown.rgb - middle).square().mean(-1))
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
        "ssim": zero,
        "lpips": zero,
    }
    if config.ssim_weight and min(rendering.rgb.shape[-2:]) >= SSIM_WINDOW:
        inner = slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2))
        values = dissimilarity(rendering.rgb, truth.rgb)
        terms["ssim"] = masked_mean(values, truth.valid[:, inner, inner])
    if config.lpips_weight and perceptual is not None:
        distances = perceptual(rendering.rgb, truth.rgb)
        terms["lpips"] = masked_mean(distances, truth.valid.flatten(1).all(1))
    relative = {name: relative_error(*error) for name, error in errors.items()}
    return {**terms, "total": weighted_total({**terms, **relative}, config)}


def relative_error(
    squared: Float[Tensor, "batch ..."], mask: Bool[Tensor, "batch ..."]
) -> Float[Tensor, ""]:
    """Return the mean over windows of ``s log(1 + e / s)``, e the mean of squared errors in a mask.

    Half an error counts alike in dark and bright, simple and difficult windows, as it does in the
    mean PSNR of images, but for windows with hardly any error.
    """
    squared, mask = squared.flatten(1), mask.flatten(1)
    count = mask.sum(1)
    mean = torch.where(mask, squared, 0).sum(1) / count.clamp_min(1)
    return masked_mean(ERROR_SCALE * torch.log1p(mean / ERROR_SCALE), count > 0)


def source_entropy(
    model: VGGTNeRF,
    scene: SceneFeatures,
    sources: Views,
    near_far: Float[Tensor, "batch 2"],
    num_pixels: int,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Return the cross-entropy of the volume in front of one source ``(batch,)`` with its depth.

    ``scene`` is unrefined: this teaches the refinement.
    """
    volume = model.build_cost_volume(scene, sources.cameras, near_far, sources.size)
    window, truth = draw_window(sources, num_pixels, SHRINK, generator)
    levels = model.find_bins(scene, volume, window, generator)
    known = truth.bundle_valid & (truth.depth > 0)
    return torch.stack([bin_entropy(level, truth.depth, known) for level in levels]).mean()


def bin_entropy(
    level: RayBins, depth: Float[Tensor, "batch ray"], known: Bool[Tensor, "batch ray"]
) -> Float[Tensor, ""]:
    """Return the cross-entropy of bins with the two whose places a true depth lies between."""
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
    """Return the mean cross-entropy of the levels' weights with those of the rendering.

    Samples are drawn without gradients: where no depth is known, nothing else teaches the volume
    where surfaces are (as with the proposals of mip-NeRF 360, Barron et al. 2022).
    """
    weights = rendering.bundles.composite.weights.detach()
    terms = []
    for level in rendering.levels:
        inner = level.t_edges[..., 1:-1].contiguous()
        places = torch.searchsorted(inner, rendering.bundles.t.contiguous())
        target = torch.zeros_like(level.weights).scatter_add(-1, places, weights)
        logs = (level.weights + 1e-6).log()
        terms.append(masked_mean(-(target * logs).sum(-1), valid))
    return torch.stack(terms).mean()


def render_drawn_window(
    model: VGGTNeRF,
    scene: SceneFeatures,
    targets: Views,
    near_far: Float[Tensor, "batch 2"],
    num_pixels: int,
    generator: torch.Generator,
) -> tuple[WindowRendering, WindowTruth]:
    """Draw a window of every target ``(batch,)`` and render it, with a volume of its own."""
    volume = model.build_cost_volume(scene, targets.cameras, near_far, targets.size)
    side = model.config.rendering.bundle_size
    window, truth = draw_window(targets, num_pixels, side, generator)
    return model.render_window(scene, volume, window, generator), truth
