"""A quick depth map from known cameras: plane sweep stereo (Collins, CVPR 1996)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from datasets.views import Views
from utils.cameras import Cameras, project, unproject
from utils.rays import pixel_grid, view_grid

_PLANES = 48
_WINDOW = 7


def sweep_depth(
    views: Views, near_far: Float[Tensor, " 2"], planes: int = _PLANES
) -> Float[Tensor, "height width"]:
    """Return for each pixel of the first view the depth at which the others look most alike.

    Args:
        views: The target, then its neighbours; one axis.
        near_far: Between which depths are tried, evenly in inverse depth.
        planes: How many.
    """
    near, far = near_far.tolist()
    steps = torch.linspace(0, 1, planes)
    depths = 1 / (steps / far + (1 - steps) / near)
    costs = torch.stack([_cost(views, float(depth)) for depth in depths])
    return depths[costs.argmin(0)]


def warp(
    views: Views, depth: Float[Tensor, "height width"], source: int
) -> Float[Tensor, "3 height width"]:
    """Draw the first view with another's colours, given the first one's depth; grey outside."""
    height, width = views.size
    pixels = pixel_grid(height, width, depth.device)
    points = unproject(pixels, depth.flatten(), views.cameras[0])
    there, z = project(points, views.cameras[source])
    grid = view_grid(there, (height, width)).reshape(1, height, width, 2)
    colors = F.grid_sample(views.images[source][None], grid, align_corners=False)[0]
    inside = (grid[0].abs() <= 1).all(-1) & (z.reshape(height, width) > 0)
    return torch.where(inside, colors, 0.5)


def shrink(views: Views, long_side: int) -> Views:
    """Return smaller images with their cameras; depth and masks are dropped."""
    height, width = views.size
    factor = min(1.0, long_side / max(height, width))
    size = max(8, round(height * factor)), max(8, round(width * factor))
    images = F.interpolate(views.images, size, mode="area")
    scale = views.images.new_tensor([size[1] / width, size[0] / height, 1.0])
    cameras = Cameras(views.cameras.intrinsics * scale[:, None], views.cameras.c2w)
    flat = images.new_zeros(len(images), *size)
    return Views(images, cameras, flat, flat == 0)


def _cost(views: Views, depth: float) -> Float[Tensor, "height width"]:
    flat = torch.full(views.size, depth)
    pad = _WINDOW // 2
    costs = []
    for source in range(1, len(views.images)):
        difference = (warp(views, flat, source) - views.images[0]).abs().mean(0)
        costs.append(F.avg_pool2d(difference[None, None], _WINDOW, 1, pad)[0, 0])
    # A neighbour that does not see the place must not forbid it.
    return torch.stack(costs).sort(0).values[: max(1, len(costs) // 2 + 1)].mean(0)
