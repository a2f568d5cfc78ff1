"""What the network should answer: true geometry in the first camera's frame, at unit scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datasets.views import Views
from models.vggt.pose_encoding import encode_pose
from utils.cameras import Cameras, unproject
from utils.rays import pixel_grid


@dataclass(frozen=True)
class GeometryTargets:
    """Truth for every head. Where ``valid`` is false, depths and points mean nothing."""

    pose_enc: Float[Tensor, "batch view 9"]
    depth: Float[Tensor, "batch view height width"]
    points: Float[Tensor, "batch view height width 3"]
    valid: Bool[Tensor, "batch view height width"]


@torch.no_grad()
def geometry_targets(views: Views) -> GeometryTargets:
    """Bring a batch of scenes to the first camera's frame and a mean point distance of one.

    The unit is the mean distance of all valid points from the first camera (Wang et al., "VGGT",
    2025, section 3.4). The network's own predictions are not normalised: it has to learn the unit.
    """
    height, width = views.size
    valid = views.masks & (views.depths > 0) & views.depths.isfinite()
    depths = torch.where(valid, views.depths, 0.0)
    cameras = first_camera_frame(views.cameras)
    pixels = pixel_grid(height, width, depths.device)
    points = unproject(pixels, depths.flatten(2), cameras).unflatten(2, (height, width))
    distances = torch.where(valid, points.norm(dim=-1), 0.0).sum((1, 2, 3))
    scale = distances / valid.sum((1, 2, 3)).clamp_min(1)
    factor = 1 / torch.where(scale > 0, scale, 1.0)
    c2w = cameras.c2w.clone()
    c2w[..., :3, 3] *= factor[:, None, None]
    return GeometryTargets(
        pose_enc=encode_pose(Cameras(cameras.intrinsics, c2w), height, width),
        depth=depths * factor[:, None, None, None],
        points=points * factor[:, None, None, None, None],
        valid=valid,
    )


def first_camera_frame(cameras: Cameras) -> Cameras:
    """Express cameras with axes (batch, view) in the frame of each batch element's first."""
    return Cameras(cameras.intrinsics, cameras[:, :1].w2c @ cameras.c2w)
