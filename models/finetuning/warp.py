"""Where in the unit cube the points of a scene lie, so that a grid spends its cells well.

Scenes that all cameras see from one side are stored as a reference camera sees them: across its
image and in inverse depth, so that cells are as large as pixels are coarse. Other scenes are stored
around the point that the cameras look at, with all that is far away drawn in (mip-NeRF 360, Barron
et al. 2022, equation 10).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.sampling import DepthPlanes
from utils.cameras import Cameras, full_precision, invert_rigid
from utils.rays import cell_grid, pixel_rays

MAX_SPREAD = 0.5
"""Smallest cosine between a camera's axis and the mean axis of cameras that look from one side."""
_CELLS, _DEPTHS = 8, 16


class SceneWarp(nn.Module):
    """Maps points of the world into [0, 1]^3. Holds nothing that is trained."""

    def __init__(self, one_sided: bool) -> None:
        """Begin with the identity of a kind; ``fit`` or a state dict fill it in."""
        super().__init__()
        self.one_sided = one_sided
        self.register_buffer("w2c", torch.eye(4))
        self.register_buffer("low", torch.zeros(3))
        self.register_buffer("extent", torch.ones(3))
        self.w2c: Tensor
        self.low: Tensor
        self.extent: Tensor

    def forward(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Return positions in the cube; points outside the scene end on its border."""
        return ((self._bend(points) - self.low) / self.extent).clamp(0, 1)

    def _bend(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        with full_precision(points):
            local = points.float() @ self.w2c[:3, :3].T + self.w2c[:3, 3]
        if self.one_sided:
            inverse = 1 / local[..., 2:].clamp_min(1e-6)
            return torch.cat([local[..., :2] * inverse, inverse], -1)
        length = local.abs().amax(-1, keepdim=True).clamp_min(1)
        return local * ((2 - 1 / length) / length)


@torch.no_grad()
def fit_warp(
    cameras: Cameras, size: tuple[int, int], near_far: Float[Tensor, " 2"], lindisp: bool
) -> SceneWarp:
    """Choose the kind of warp and its bounds from what the cameras see between near and far.

    Args:
        cameras: Batch axes ``(view,)``.
        size: Height and width of their images.
        near_far: Depth range.
        lindisp: Whether depths are spread evenly in inverse depth.
    """
    axes = cameras.c2w[:, :3, 2]
    mean_axis = torch.nn.functional.normalize(axes.mean(0), dim=0)
    warp = SceneWarp(bool(((axes @ mean_axis) > MAX_SPREAD).all())).to(near_far.device)
    if not warp.one_sided:
        _fit_around(warp, cameras, near_far)
        return warp
    points = _seen_points(cameras, size, near_far, lindisp)
    rotation = _frame(mean_axis, cameras.c2w[:, :3, 1].mean(0))
    ahead = (points @ rotation[:, 2]).min()
    # Far enough behind the cameras for everything to lie in front, no nearer than near itself.
    center = cameras.centers.mean(0)
    center = center + (ahead - near_far[0] - center @ rotation[:, 2]).clamp(max=0) * rotation[:, 2]
    c2w = torch.eye(4, device=near_far.device)
    c2w[:3, :3], c2w[:3, 3] = rotation, center
    warp.w2c.copy_(invert_rigid(c2w))
    bent = warp._bend(points)
    warp.low.copy_(bent.amin(0))
    warp.extent.copy_((bent.amax(0) - bent.amin(0)).clamp_min(1e-6))
    return warp


def _fit_around(warp: SceneWarp, cameras: Cameras, near_far: Float[Tensor, " 2"]) -> None:
    """Centre on the point nearest to all optical axes; cameras end where space begins to bend."""
    axes = cameras.c2w[:, :3, 2]
    across = torch.eye(3, device=axes.device) - axes[:, :, None] * axes[:, None]
    # A weak pull to a point in front of every camera settles axes that are nearly parallel.
    middle = (cameras.centers + axes * near_far.prod().sqrt()).mean(0)
    left = across.sum(0) + 1e-2 * torch.eye(3, device=axes.device)
    right = (across @ cameras.centers[..., None]).sum(0)[:, 0] + 1e-2 * middle
    center = torch.linalg.solve(left, right)
    radius = (cameras.centers - center).norm(dim=-1).median().clamp_min(1e-6)
    warp.w2c[:3, :3] = torch.eye(3, device=axes.device) / radius
    warp.w2c[:3, 3] = -center / radius
    warp.low.fill_(-2.0)
    warp.extent.fill_(4.0)


def _seen_points(
    cameras: Cameras, size: tuple[int, int], near_far: Float[Tensor, " 2"], lindisp: bool
) -> Float[Tensor, "point 3"]:
    count = len(cameras.c2w)
    centers = cell_grid((_CELLS, _CELLS), size, near_far.device)
    middle = centers.new_tensor([size[1] / 2, size[0] / 2])
    # Spread so that the outermost lie on the image's border.
    rays = pixel_rays(cameras, middle + (centers - middle) * (_CELLS / (_CELLS - 1)))
    planes = DepthPlanes(near_far.expand(count, 2), _DEPTHS, lindisp)
    depths = planes.edges()[:, None].expand(-1, _CELLS**2, -1)
    return rays.at(depths).reshape(-1, 3)


def _frame(forward: Float[Tensor, " 3"], down: Float[Tensor, " 3"]) -> Float[Tensor, "3 3"]:
    """Return the rotation of a camera, given its axis and roughly what is down."""
    right = torch.nn.functional.normalize(torch.linalg.cross(down, forward), dim=0)
    return torch.stack([right, torch.linalg.cross(forward, right), forward], -1)
