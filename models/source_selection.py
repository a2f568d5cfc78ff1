"""Which training views a camera is rendered from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.ray_sampling import DepthPlanes
from utils.cameras import Cameras, cell_grid, pixel_rays, project

_CELLS, _DEPTHS = (6, 8), 6
_ANGLE = 0.35
"""Angle in radians, between two views of a point, that gives one the weight 1/e for the other."""
_SHARE = 0.3
"""Share of a point that a perfect view covers; with 0.7 fern was 0.2 dB worse, DTU no better."""
_TIE = 1e-3
"""Weight of the distance between cameras, which decides where no view sees anything."""


@dataclass(frozen=True)
class Frames:
    """Cameras whose images are of one size."""

    cameras: Cameras
    """Batch axes ``(view,)``."""
    size: tuple[int, int]
    """Height and width."""


@torch.no_grad()
def choose_sources(
    targets: Frames,
    pool: Frames,
    near_far: Float[Tensor, " 2"],
    count: int,
    *,
    lindisp: bool = False,
    own: Int[Tensor, " target"] | None = None,
) -> Int[Tensor, "target source"]:
    """Choose for each camera the views that together cover best what it sees.

    Each view of the pool covers points of the camera's frustum that it sees, the better the more
    alike angle and distance are. Views are chosen greedily, each for what it adds to those before
    it: an image whose halves have different neighbours gets both. Never waits for the device.

    Args:
        targets: Cameras to render.
        pool: Cameras to choose from.
        near_far: Depth range of the scene.
        count: Sources of each camera; no more than there are views.
        lindisp: Whether depths are spread evenly in inverse depth.
        own: For each camera the view of the pool that it is, and must not be chosen.
    """
    chosen = []
    for target in range(len(targets.cameras.c2w)):
        one = Frames(targets.cameras[target : target + 1], targets.size)
        coverage = _coverage(one, pool, near_far, lindisp)
        if own is not None:
            itself = torch.arange(len(coverage), device=coverage.device) == own[target]
            coverage = torch.where(itself[:, None], -1.0, coverage)
        missing, order = torch.ones_like(coverage[0]), []
        for _ in range(count):
            best = (coverage * missing).sum(-1).argmax()
            order.append(best)
            covered = coverage.index_select(0, best[None])[0]
            missing = missing * (1 - _SHARE * covered)
            taken = torch.arange(len(coverage), device=coverage.device) == best
            coverage = torch.where(taken[:, None], -1.0, coverage)
        chosen.append(torch.stack(order))
    return torch.stack(chosen)


def _coverage(
    target: Frames, pool: Frames, near_far: Float[Tensor, " 2"], lindisp: bool
) -> Float[Tensor, "view point"]:
    """Return how well each view of the pool covers points that the camera sees."""
    rays = pixel_rays(target.cameras, cell_grid(_CELLS, target.size, near_far.device))
    planes = DepthPlanes(near_far[None], _DEPTHS, lindisp)
    depths = planes.centers()[:, None].expand(-1, _CELLS[0] * _CELLS[1], -1)
    points = rays.at(depths).reshape(-1, 3)
    pixels, z = project(points, pool.cameras)
    limits = pixels.new_tensor([pool.size[1], pool.size[0]])
    seen = ((pixels >= 0) & (pixels <= limits)).all(-1) & (z > 0)
    theirs, ours = points - pool.cameras.centers[:, None], points - target.cameras.centers
    distance, reference = theirs.norm(dim=-1), ours.norm(dim=-1)
    cosine = (theirs * ours).sum(-1) / (distance * reference).clamp_min(1e-12)
    angle = torch.acos(cosine.clamp(-1, 1))
    ratio = (distance / reference.clamp_min(1e-12)).clamp(1e-3, 1e3)
    weight = torch.exp(-angle / _ANGLE) * torch.minimum(ratio, 1 / ratio)
    apart = (pool.cameras.centers - target.cameras.centers).norm(dim=-1, keepdim=True) / near_far[1]
    return seen * weight + _TIE / (1 + apart)
