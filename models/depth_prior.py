"""The depth prior: the backbone's depth of every source view, in the unit of the given cameras."""

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
"""Relative depth difference of two views at which agreement falls to 0.6."""
OCCLUSION = 0.1
"""Relative depth behind another view's surface from which on that view is ignored."""
NEUTRAL_WEIGHT = 0.25
"""Weight of a neutral vote of 0.5 beside the votes of the other views."""


@dataclass(frozen=True)
class DepthPrior:
    """Estimated surfaces of every source view."""

    depth: Float[Tensor, "batch view rows columns"]
    """z-depth within [near, far]; the maps cover the whole image."""
    confidence: Float[Tensor, "batch view rows columns"]
    """In [0, 1]: the backbone's own, times the multi-view consistency."""
    reliability: Float[Tensor, " batch"]
    """In [0, 1]: whether the depth's scale is known; at 0 the maps are meaningless."""

    def depth_and_confidence(self) -> Float[Tensor, "batch view 2 rows columns"]:
        """Stack the depth and the product of confidence and reliability."""
        confidence = self.confidence * self.reliability[:, None, None, None]
        return torch.stack([self.depth, confidence], 2)


def empty_depth_prior(
    images: Float[Tensor, "batch view 3 height width"], near_far: Float[Tensor, "batch 2"]
) -> DepthPrior:
    """Return the prior of a model without a backbone: no confidence anywhere."""
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

    Finite whatever the backbone predicts; no synchronisation with the device. Views outside of
    ``view_mask`` get no confidence and do not vote.
    """
    if backbone.depth is None or backbone.depth_conf is None:
        return empty_depth_prior(images, near_far)
    with full_precision(images):
        near_far = near_far.float()
        size = (images.shape[-2], images.shape[-1])
        cells = (-(-size[0] // SHRINK), -(-size[1] // SHRINK))
        if view_mask is None:
            view_mask = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device)
        geometry = _predicted(backbone, cells, view_mask)
        scale, reliability = fit_scale(geometry, images, cameras, near_far)
        near, far = (near_far[:, i, None, None, None] for i in (0, 1))
        scaled = geometry.depth * scale[:, None, None, None]
        depth = scaled.maximum(near).minimum(far)
        agreed = multiview_consistency(depth, geometry.confidence, cameras, size, view_mask)
        # A depth that had to be clamped is no measurement.
        inside = (scaled >= near * 0.9) & (scaled <= far * 1.1)
        confidence = geometry.confidence * agreed * inside * view_mask[:, :, None, None]
        return DepthPrior(depth, confidence, torch.nan_to_num(reliability))


def _predicted(
    backbone: BackboneFeatures, size: tuple[int, int], view_mask: Bool[Tensor, "batch view"]
) -> PredictedGeometry:
    """Bring the maps to one size and make everything finite."""
    assert backbone.depth is not None and backbone.depth_conf is not None
    depth, raw = backbone.depth.float(), backbone.depth_conf.float()
    usable = depth.isfinite() & (depth > 1e-6) & (depth < 1e6) & ~raw.isnan()
    depth = torch.where(usable, depth, 1.0)
    # Confidence runs from 1 up; this maps it to [0, 1), whatever its unit.
    confidence = torch.where(usable, 1 - 1 / raw.clamp_min(1.0), 0.0)
    depth = F.interpolate(depth, size, mode="nearest-exact")
    confidence = F.interpolate(confidence, size, mode="nearest-exact")
    batch, views = depth.shape[:2]
    centers = depth.new_zeros(batch, views, 3)
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

    Pixels vote by their confidence in [0, 1]; ``size`` is the images' height and width.
    """
    views, (rows, columns) = depth.shape[1], depth.shape[-2:]
    pixels = cell_grid((rows, columns), size, depth.device)
    lifted = reproject(pixels, depth.flatten(2), cameras, size, view_mask)
    grid = rearrange(lifted.grid, "b v o p c -> (b o) v p c")
    maps = torch.stack([depth, confidence], 2).flatten(0, 1)
    read = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
    theirs, weight = rearrange(read, "(b o) c v p -> c b v o p", o=views)
    difference = (lifted.depths - theirs) / theirs
    votes = weight * lifted.seen * (difference < OCCLUSION)
    agreement = torch.exp(-(difference / AGREEMENT).square() / 2)
    total = votes.sum(2) + NEUTRAL_WEIGHT
    confirmed = ((votes * agreement).sum(2) + NEUTRAL_WEIGHT / 2) / total
    return confirmed.unflatten(-1, (rows, columns))
