"""The pixels of each view as the other views see them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from utils.cameras import Cameras, project, unproject
from utils.rays import view_grid


def lift_into_others(
    pixels: Float[Tensor, "query 2"],
    depth: Float[Tensor, "batch view query"],
    cameras: Cameras,
    size: tuple[int, int],
    view_mask: Bool[Tensor, "batch view"],
) -> tuple[
    Float[Tensor, "batch view other query 2"],
    Float[Tensor, "batch view other query"],
    Bool[Tensor, "batch view other query"],
]:
    """Lift each view's pixels by their depth and project them into all views.

    Args:
        pixels: Positions, the same in every view.
        depth: Their z-depth.
        cameras: Of the views.
        size: Height and width of their images.
        view_mask: Views that see anything.

    Returns:
        Where they are seen, as ``view_grid`` has it (0 where they are not); their z-depth there;
        and whether they are seen: in front of another view of the mask and inside its image.
    """
    points = unproject(pixels, depth, cameras)
    others = Cameras(cameras.intrinsics[:, None], cameras.c2w[:, None])
    seen, z = project(points[:, :, None], others)
    grid = view_grid(seen, size)
    itself = torch.eye(depth.shape[1], dtype=torch.bool, device=z.device)[:, :, None]
    inside = (grid.abs() <= 1).all(-1) & (z > 1e-6) & ~itself & view_mask[:, None, :, None]
    return torch.where(inside[..., None], grid, 0), z, inside
