"""The depth prior: a surface estimate for every source view, in the unit of the given cameras.

It starts as the backbone's depth, from tokens at 1/14 of a small image, with a fitted scale. Cost
volumes in front of the source views refine it, as in cascades of cost volumes (CasMVSNet, Gu et al.
2020). ``benchmarks.prior_depth`` measures the gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from models.depth_scale import PredictedGeometry, fit_scale
from models.vggt.backbone import BackboneFeatures
from models.vggt.pose_encoding import decode_pose
from utils.cameras import Cameras, cell_grid, full_precision, reproject

SHRINK = 4
"""Source pixels per pixel of the prior, along each side."""
AGREEMENT = 0.03
"""Relative depth difference between two views at which agreement falls to 0.6."""
OCCLUSION = 0.1
"""Relative depth behind another view's surface beyond which a point is hidden from that view."""
NEUTRAL_WEIGHT = 0.25
"""Weight of a constant vote of 0.5, added to the votes of the other views."""


@dataclass(frozen=True)
class DepthPrior:
    """Estimated surfaces of every source view."""

    depth: Float[Tensor, "batch view rows columns"]
    """z-depth within [near, far]; the maps cover the whole image."""
    confidence: Float[Tensor, "batch view rows columns"]
    """In [0, 1]: that of the estimate times the multi-view consistency."""
    reliability: Float[Tensor, " batch"]
    """In [0, 1]: whether the depth's scale is known; at 0 the maps are meaningless."""

    def depth_and_confidence(self) -> Float[Tensor, "batch view 2 rows columns"]:
        """Stack the depth and the product of confidence and reliability."""
        confidence = self.confidence * self.reliability[:, None, None, None]
        return torch.stack([self.depth, confidence], 2)


def empty_depth_prior(
    images: Float[Tensor, "batch view 3 height width"], near_far: Float[Tensor, "batch 2"]
) -> DepthPrior:
    """Return the prior of a model without a backbone: zero confidence."""
    batch, views = images.shape[:2]
    middle = near_far.float().prod(-1).sqrt()[:, None, None, None]
    return DepthPrior(
        depth=middle.expand(batch, views, 1, 1),
        confidence=middle.new_zeros(batch, views, 1, 1),
        reliability=middle.new_zeros(batch),
    )


@torch.no_grad()
def build_depth_prior(
    backbone: BackboneFeatures,
    images: Float[Tensor, "batch view 3 height width"],
    cameras: Cameras,
    near_far: Float[Tensor, "batch 2"],
    view_mask: Bool[Tensor, "batch view"] | None = None,
) -> DepthPrior:
    """Scale the backbone's depth to the given cameras and weigh it by multi-view consistency.

    Finite for any prediction of the backbone. Does not synchronise with the device. Views outside
    ``view_mask`` get zero confidence and do not vote.
    """
    if backbone.depth is None or backbone.depth_conf is None:
        return empty_depth_prior(images, near_far)
    with full_precision(images):
        near_far = near_far.float()
        size = (images.shape[-2], images.shape[-1])
        cells = (-(-size[0] // SHRINK), -(-size[1] // SHRINK))
        if view_mask is None:
            view_mask = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device)
        geometry = _predicted_geometry(backbone, cells, view_mask)
        scale, reliability = fit_scale(geometry, images, cameras, near_far)
        near, far = (near_far[:, i, None, None, None] for i in (0, 1))
        scaled = geometry.depth * scale[:, None, None, None]
        depth = scaled.maximum(near).minimum(far)
        consistency = multiview_consistency(depth, geometry.confidence, cameras, size, view_mask)
        # Depths far outside the range are clamped, and therefore not trusted.
        in_range = (scaled >= near * 0.9) & (scaled <= far * 1.1)
        confidence = geometry.confidence * consistency * in_range * view_mask[:, :, None, None]
        return DepthPrior(depth, confidence, torch.nan_to_num(reliability))


def refined_depth_prior(
    fitted: DepthPrior,
    depth: Float[Tensor, "batch view rows columns"],
    mass: Float[Tensor, "batch view rows columns"],
    cameras: Cameras,
    size: tuple[int, int],
    view_mask: Bool[Tensor, "batch view"] | None = None,
) -> DepthPrior:
    """Replace the fitted depth by that of cost volumes in front of the sources of image ``size``.

    ``mass`` is the rendering weight at the estimated surface.
    """
    if view_mask is None:
        view_mask = mass.new_ones(mass.shape[:2], dtype=torch.bool)
    mass = mass * view_mask[:, :, None, None]
    with full_precision(depth):
        confidence = mass * multiview_consistency(depth, mass, cameras, size, view_mask)
    # Two or more given cameras determine the scale; with one the fitted scale remains.
    several = view_mask.sum(1) > 1
    return DepthPrior(depth, confidence, torch.where(several, 1.0, fitted.reliability))


def _predicted_geometry(
    backbone: BackboneFeatures, size: tuple[int, int], view_mask: Bool[Tensor, "batch view"]
) -> PredictedGeometry:
    """Resize the backbone's maps and replace values that are not finite."""
    assert backbone.depth is not None and backbone.depth_conf is not None
    depth, raw = backbone.depth.float(), backbone.depth_conf.float()
    usable = depth.isfinite() & (depth > 1e-6) & (depth < 1e6) & ~raw.isnan()
    depth = torch.where(usable, depth, 1.0)
    # The backbone's confidence is at least 1; this maps it to [0, 1).
    confidence = torch.where(usable, 1 - 1 / raw.clamp_min(1.0), 0.0)
    depth = F.interpolate(depth, size, mode="nearest-exact")
    confidence = F.interpolate(confidence, size, mode="nearest-exact")
    centers = depth.new_zeros(*depth.shape[:2], 3)
    if backbone.pose_enc is not None:
        cameras = decode_pose(backbone.pose_enc.float(), *backbone.network_size)
        centers = cameras.centers.nan_to_num(0.0, 0.0, 0.0)
    return PredictedGeometry(depth, confidence, centers.clamp(-1e6, 1e6), view_mask)


def multiview_consistency(
    depth: Float[Tensor, "batch view rows columns"],
    confidence: Float[Tensor, "batch view rows columns"],
    cameras: Cameras,
    size: tuple[int, int],
    view_mask: Bool[Tensor, "batch view"],
) -> Float[Tensor, "batch view rows columns"]:
    """Return how far the other views confirm each depth, in [0, 1]; 0.5 where none sees it.

    Votes are weighted by confidence in [0, 1]; ``size`` is the images' height and width.
    """
    views, (rows, columns) = depth.shape[1], depth.shape[-2:]
    pixels = cell_grid((rows, columns), size, depth.device)
    lifted = reproject(pixels, depth.flatten(2), cameras, size, view_mask)
    grid = rearrange(lifted.grid, "b v o p c -> (b o) v p c")
    maps = torch.stack([depth, confidence], 2).flatten(0, 1)
    read = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
    other_depth, other_confidence = rearrange(read, "(b o) c v p -> c b v o p", o=views)
    difference = (lifted.depths - other_depth) / other_depth
    votes = other_confidence * lifted.seen * (difference < OCCLUSION)
    agreement = torch.exp(-(difference / AGREEMENT).square() / 2)
    total = votes.sum(2) + NEUTRAL_WEIGHT
    consistency = ((votes * agreement).sum(2) + NEUTRAL_WEIGHT / 2) / total
    return consistency.unflatten(-1, (rows, columns))
