"""Selection of source views by how well they cover what a target camera sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.ray_sampling import DepthPlanes
from utils.cameras import Cameras, cell_grid, pixel_rays, project, view_grid

_CELLS, _DEPTHS = (6, 8), 6
"""Rows and columns of rays, and points on each, that sample a target's frustum."""
_ANGLE = 0.35
"""Angle in radians between two viewing directions at which the weight falls to 1/e."""
_SHARE = 0.3
"""Share of a point that a perfect view covers; with 0.7 fern was 0.2 dB worse, DTU no better."""
_TIE = 1e-3
"""Weight of the distance between cameras, which decides where no view sees a point."""


@dataclass(frozen=True)
class SizedCameras:
    """Cameras whose images have one size."""

    cameras: Cameras
    """Batch axes ``(view,)``."""
    size: tuple[int, int]
    """Height and width."""


@torch.no_grad()
def choose_sources(
    targets: SizedCameras,
    pool: SizedCameras,
    near_far: Float[Tensor, " 2"],
    count: int,
    *,
    lindisp: bool = False,
    own: Int[Tensor, " target"] | None = None,
) -> Int[Tensor, "target source"]:
    """Choose ``count`` views of the pool that together cover best what each target sees.

    A view covers the points of the target's frustum that it sees, weighted by similar angle and
    distance. Views are chosen greedily by the coverage they add. ``own`` is the index of each
    target in the pool, which is not chosen. Does not synchronise with the device.
    """
    chosen = []
    for target in range(len(targets.cameras.c2w)):
        camera = SizedCameras(targets.cameras[target : target + 1], targets.size)
        coverage = _coverage(camera, pool, near_far, lindisp)
        indices = torch.arange(len(coverage), device=coverage.device)
        if own is not None:
            coverage = torch.where((indices == own[target])[:, None], -1.0, coverage)
        missing, order = torch.ones_like(coverage[0]), []
        for _ in range(count):
            best = (coverage * missing).sum(-1).argmax()
            order.append(best)
            missing = missing * (1 - _SHARE * coverage.index_select(0, best[None])[0])
            coverage = torch.where((indices == best)[:, None], -1.0, coverage)
        chosen.append(torch.stack(order))
    return torch.stack(chosen)


def _coverage(
    target: SizedCameras, pool: SizedCameras, near_far: Float[Tensor, " 2"], lindisp: bool
) -> Float[Tensor, "view point"]:
    """Return how well each view of the pool covers points in the frustum of one target."""
    rays = pixel_rays(target.cameras, cell_grid(_CELLS, target.size, near_far.device))
    planes = DepthPlanes(near_far[None], _DEPTHS, lindisp)
    depths = planes.centers()[:, None].expand(-1, _CELLS[0] * _CELLS[1], -1)
    points = rays.at(depths).reshape(-1, 3)
    pixels, z = project(points, pool.cameras)
    seen = (view_grid(pixels, pool.size).abs() <= 1).all(-1) & (z > 0)
    from_pool = points - pool.cameras.centers[:, None]
    from_target = points - target.cameras.centers
    distance, reference = from_pool.norm(dim=-1), from_target.norm(dim=-1)
    cosine = (from_pool * from_target).sum(-1) / (distance * reference).clamp_min(1e-12)
    angle = torch.acos(cosine.clamp(-1, 1))
    ratio = (distance / reference.clamp_min(1e-12)).clamp(1e-3, 1e3)
    weight = torch.exp(-angle / _ANGLE) * torch.minimum(ratio, 1 / ratio)
    baseline = pool.cameras.centers - target.cameras.centers
    baseline = baseline.norm(dim=-1, keepdim=True) / near_far[1]
    return seen * weight + _TIE / (1 + baseline)
