"""Random pixels and windows of the target views, and their ground truth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from datasets.views import Views
from models.bundles import Window, WindowRendering
from models.projection import SceneFeatures
from models.vggt_nerf import VGGTNeRF


@dataclass(frozen=True)
class WindowTruth:
    """Ground truth of one window in each target."""

    rgb: Float[Tensor, "batch 3 height width"]
    valid: Bool[Tensor, "batch height width"]
    depth: Float[Tensor, "batch bundle"]
    """z-depth of each bundle: lower median of its pixels, 0 if one of them is unknown."""
    bundle_rgb: Float[Tensor, "batch bundle channel"]
    """Colours of the pixels of each bundle, concatenated."""
    bundle_valid: Bool[Tensor, "batch bundle"]


def draw_pixels(
    views: Views, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "batch pixel 2"], Int[Tensor, "batch pixel"]]:
    """Draw pixels of each view ``(batch,)``: their centres, and their row-major indices."""
    height, width = views.size
    shape, device = (len(views.images), count), views.images.device
    indices = torch.randint(height * width, shape, generator=generator, device=device)
    return torch.stack([indices % width + 0.5, indices // width + 0.5], -1), indices


def pixel_colors(
    views: Views, indices: Int[Tensor, "batch pixel"]
) -> Float[Tensor, "batch pixel 3"]:
    """Return the true colours of pixels."""
    return views.images.flatten(2).gather(2, indices[:, None].expand(-1, 3, -1)).transpose(1, 2)


def draw_window(
    targets: Views, num_pixels: int, side: int, generator: torch.Generator
) -> tuple[Window, WindowTruth]:
    """Draw a window of about ``num_pixels`` in every target ``(batch,)``.

    It consists of bundles of ``side`` x ``side`` pixels and is as square as the images permit.
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
    """Return the ground truth in a window of every target."""
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


def render_random_window(
    model: VGGTNeRF,
    scene: SceneFeatures,
    targets: Views,
    near_far: Float[Tensor, "batch 2"],
    num_pixels: int,
    generator: torch.Generator,
) -> tuple[WindowRendering, WindowTruth]:
    """Draw a window of every target ``(batch,)`` and render it."""
    volume = model.build_cost_volume(scene, targets.cameras, near_far, targets.size)
    side = model.config.rendering.bundle_size
    window, truth = draw_window(targets, num_pixels, side, generator)
    return model.render_window(scene, volume, window, generator), truth
