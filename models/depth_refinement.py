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

from models.depth_prior import DepthPrior, multiview_consistency
from models.projection import SceneFeatures
from utils.cameras import Cameras, full_precision

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
