"""Refinement of the depth prior by cost volumes in front of the source views.

The backbone's depth comes from tokens at 1/14 of a small image, and its scale is fitted. A volume
in front of each source compares the views at their given cameras, starting from that depth, as in
cascades of cost volumes (CasMVSNet, Gu et al. 2020). ``benchmarks.prior_depth`` measures the gain.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from models.cost_volume import CostVolume
from models.depth_prior import DepthPrior, multiview_consistency
from models.projection import SceneFeatures
from utils.cameras import Cameras, full_precision

NEIGHBOURS = 2
"""Planes on either side of the likeliest one that belong to the same surface."""

Surface = tuple[Float[Tensor, "batch row column"], Float[Tensor, "batch row column"]]
"""z-depth, and the rendering weight that says how sure it is."""
SurfaceFinder = Callable[[SceneFeatures, Cameras], Surface]
"""Finds what one camera per scene sees, for images as large as the sources."""


@torch.no_grad()
def refine_depth_prior(find_surface: SurfaceFinder, scene: SceneFeatures) -> DepthPrior:
    """Replace the depth of every source by what a cost volume in front of it finds.

    Not differentiable: the volume is trained on targets, whose images it does not see.
    """
    found = [find_surface(scene, scene.cameras[:, view]) for view in range(scene.images.shape[1])]
    depth, mass = (torch.stack(parts, 1) for parts in zip(*found, strict=True))
    view_mask = scene.view_mask
    if view_mask is None:
        view_mask = mass.new_ones(mass.shape[:2], dtype=torch.bool)
    mass = mass * view_mask[:, :, None, None]
    with full_precision(depth):
        size = (scene.images.shape[-2], scene.images.shape[-1])
        confidence = mass * multiview_consistency(depth, mass, scene.cameras, size, view_mask)
    # The cameras give several views a scale; a single one keeps the one that was fitted.
    several = view_mask.sum(1) > 1
    reliability = torch.where(several, 1.0, scene.prior.reliability)
    return DepthPrior(depth, confidence, reliability)


def expected_surface(volume: CostVolume) -> Surface:
    """Return the z-depth around each ray's likeliest plane, and the rendering weight there."""
    weights = volume.weights
    planes = torch.arange(weights.shape[1], device=weights.device)[:, None, None]
    near = (planes - weights.argmax(1, keepdim=True)).abs() <= NEIGHBOURS
    around = weights * near
    mass = around.sum(1)
    position = (around * (planes + 0.5)).sum(1) / mass.clamp_min(1e-6) / volume.planes.count
    return volume.planes.depths(position), mass.clamp(0, 1)
