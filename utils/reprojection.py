"""Reprojection: the pixels of each view, lifted by their depth, as all other views see them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from utils.cameras import Cameras, project, unproject
from utils.rays import view_grid

_MIN_DEPTH = 1e-6


@dataclass(frozen=True)
class Reprojection:
    """Pixels of each view in every other view."""

    grid: Float[Tensor, "batch view other query 2"]
    """Position as ``view_grid`` has it; 0 where not seen."""
    depths: Float[Tensor, "batch view other query"]
    """z-depth in the other view."""
    seen: Bool[Tensor, "batch view other query"]
    """In front of another view of the mask and inside its image."""


def reproject(
    pixels: Float[Tensor, "query 2"],
    depth: Float[Tensor, "batch view query"],
    cameras: Cameras,
    size: tuple[int, int],
    view_mask: Bool[Tensor, "batch view"],
) -> Reprojection:
    """Lift each view's pixels by their depth and project them into all views.

    Args:
        pixels: Positions, the same in every view.
        depth: Their z-depth.
        cameras: Of the views.
        size: Height and width of their images.
        view_mask: Views that exist.
    """
    points = unproject(pixels, depth, cameras)
    others = Cameras(cameras.intrinsics[:, None], cameras.c2w[:, None])
    projected, z = project(points[:, :, None], others)
    grid = view_grid(projected, size)
    itself = torch.eye(depth.shape[1], dtype=torch.bool, device=z.device)[:, :, None]
    in_image = (grid.abs() <= 1).all(-1) & (z > _MIN_DEPTH)
    seen = in_image & ~itself & view_mask[:, None, :, None]
    return Reprojection(torch.where(seen[..., None], grid, 0), z, seen)
