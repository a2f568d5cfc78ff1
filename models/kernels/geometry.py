"""Projection into source views, and what is known of their surfaces, as parts of Triton kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.kernels.bilinear import bilinear_taps, read_scalars
from models.kernels.triton_support import kernel, tl
from utils.cameras import Cameras

if TYPE_CHECKING:
    from models.projection import SceneFeatures


def projections(cameras: Cameras) -> Float[Tensor, "*batch 3 4"]:
    """Return the matrices that project points of the world to homogeneous pixels."""
    return (cameras.intrinsics[..., None] * cameras.w2c[..., None, :3, :]).sum(-2)


def existing_views(scene: SceneFeatures) -> Float[Tensor, "batch view"]:
    """Return 1 for each view that exists, else 0."""
    if scene.view_mask is not None:
        return scene.view_mask.float()
    return torch.ones(scene.images.shape[:2], device=scene.images.device)


@kernel
def project(matrix, origin, direction, t, scale_x, scale_y) -> Any:
    """Return homogeneous positions, from -1 to 1 across the image, and z-depths of ray points.

    Image coordinates are linear in ``t``, as in ``projection.project_samples``.
    """
    ox, oy, oz = origin
    dx, dy, dz = direction
    m0, m1, m2, m3 = tl.load(matrix), tl.load(matrix + 1), tl.load(matrix + 2), tl.load(matrix + 3)
    x0, x1 = m0 * ox + m1 * oy + m2 * oz + m3, m0 * dx + m1 * dy + m2 * dz
    matrix += 4
    m0, m1, m2, m3 = tl.load(matrix), tl.load(matrix + 1), tl.load(matrix + 2), tl.load(matrix + 3)
    y0, y1 = m0 * ox + m1 * oy + m2 * oz + m3, m0 * dx + m1 * dy + m2 * dz
    matrix += 4
    m0, m1, m2, m3 = tl.load(matrix), tl.load(matrix + 1), tl.load(matrix + 2), tl.load(matrix + 3)
    z0, z1 = m0 * ox + m1 * oy + m2 * oz + m3, m0 * dx + m1 * dy + m2 * dz
    x = (x0 * scale_x - z0) + t * (x1 * scale_x - z1)
    y = (y0 * scale_y - z0) + t * (y1 * scale_y - z1)
    return x, y, z0 + t * z1


@kernel
def inside_image(x, y, z, pad_x, pad_y, MIN_DEPTH: tl.constexpr) -> Any:
    """Return positions divided by depth, 0 where not valid, and whether they are valid."""
    shown = tl.maximum(z, MIN_DEPTH)
    x, y = x / shown, y / shown
    valid = (tl.abs(x) <= 1 + pad_x) & (tl.abs(y) <= 1 + pad_y) & (z > MIN_DEPTH)
    return tl.where(valid, x, 0.0), tl.where(valid, y, 0.0), valid


@kernel
def scaled_depth(depth, near, far, LINDISP: tl.constexpr) -> Any:
    """Return normalised depths, as ``DepthPlanes.coordinates``."""
    if LINDISP:
        depth = tl.maximum(depth, near / 10)
        return (1 / near - 1 / depth) / (1 / near - 1 / far)
    return (depth - near) / (far - near)


@kernel
def load_vector(pointer, exists) -> Any:
    """Load three coordinates."""
    x, y = tl.load(pointer, exists, 0.0), tl.load(pointer + 1, exists, 0.0)
    return x, y, tl.load(pointer + 2, exists, 1.0)


@kernel
def behind_surface(
    prior, image, x, y, z, near, far, width, height, planes, LINDISP: tl.constexpr
) -> Any:  # fmt: skip
    """Return how many planes points lie behind the prior's surface, and its confidence."""
    offsets, weights = bilinear_taps(x, y, width, height)
    prior += image * 2 * width * height
    surface = read_scalars(prior, offsets, weights)
    behind = scaled_depth(z, near, far, LINDISP) - scaled_depth(surface, near, far, LINDISP)
    behind = tl.minimum(tl.maximum(behind, -1.0), 1.0) * planes
    return behind, read_scalars(prior + width * height, offsets, weights)


@kernel
def squashed(behind, confidence) -> Any:
    """Return residuals as ``projection.depth_residuals``: in (-1, 1), 0 without a prior."""
    return tl.where(confidence > 0, behind / (1 + tl.abs(behind)), 0.0)


@kernel
def view_means(total, squares, seen) -> Any:
    """Return mean and variance of sums over the views that see a point."""
    inverse = 1 / tl.maximum(seen, 1.0)
    mean = total * inverse[:, None]
    return mean, tl.maximum(squares * inverse[:, None] - mean * mean, 0.0)


@kernel
def channel_similarity(mean, variance, seen) -> Any:
    """Return each channel's part of ``ViewStatistics.similarity``."""
    others = (1 / tl.maximum(seen - 1, 1.0))[:, None]
    return tl.where((seen > 1)[:, None], mean * mean - variance * others, 0.0)
