"""What each source view knows about points in space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from utils.cameras import Cameras, project
from utils.rays import Rays


@dataclass(frozen=True)
class SceneFeatures:
    """A set of source views, encoded. All that rendering needs."""

    images: Float[Tensor, "batch view 3 height width"]
    features: Float[Tensor, "batch view channel map_height map_width"]
    """Feature maps that cover the whole image at any resolution."""
    cameras: Cameras


@dataclass(frozen=True)
class PointObservations:
    """Per-view observations of ray points. Entries of invalid views are finite but meaningless."""

    features: Float[Tensor, "batch view ray sample channel"]
    colors: Float[Tensor, "batch view ray sample 3"]
    directions: Float[Tensor, "batch view ray sample 4"]
    """Unit vector of the difference between the target's and the source's viewing direction, and
    their dot product, as in IBRNet (Wang et al. 2021)."""
    valid: Bool[Tensor, "batch view ray sample"]
    """The point lies in front of the source camera and inside its (padded) image."""


def observe(
    scene: SceneFeatures,
    rays: Rays,
    t: Float[Tensor, "batch ray sample"],
    pad: float = 0.0,
) -> PointObservations:
    """Project ray points into every source view and read what is there.

    Args:
        scene: The encoded sources.
        rays: Rays of the target, ``(batch, ray)``.
        t: z-depths of the points along the rays.
        pad: Points up to this many pixels outside an image still count as seen; they read its
            border.
    """
    points = rays.at(t)
    flat = rearrange(points, "b r s c -> b 1 (r s) c")
    pixels, depths = project(flat, scene.cameras)
    height, width = scene.images.shape[-2:]
    valid = _inside(pixels, depths, height, width, pad)
    scale = pixels.new_tensor([2 / width, 2 / height])
    # Invalid points may project to huge coordinates; any finite in-range stand-in will do.
    grid = torch.where(valid[..., None], pixels * scale - 1, torch.zeros_like(pixels))
    rays_samples = {"r": t.shape[1], "s": t.shape[2]}
    return PointObservations(
        features=_sample(scene.features, grid, rays_samples),
        colors=_sample(scene.images, grid, rays_samples),
        directions=relative_directions(points, rays, scene.cameras),
        valid=rearrange(valid, "b v (r s) -> b v r s", **rays_samples),
    )


def relative_directions(
    points: Float[Tensor, "batch ray sample 3"], rays: Rays, cameras: Cameras
) -> Float[Tensor, "batch view ray sample 4"]:
    """Compare the direction from which the target sees each point with each source's."""
    to_point = points[:, None] - cameras.centers[:, :, None, None]
    source = F.normalize(to_point, dim=-1)
    target = rays.viewdirs[:, None, :, None].expand_as(source)
    difference = F.normalize(target - source, dim=-1, eps=1e-6)
    return torch.cat([difference, (target * source).sum(-1, keepdim=True)], -1)


def _inside(
    pixels: Float[Tensor, "*batch point 2"],
    depths: Float[Tensor, "*batch point"],
    height: int,
    width: int,
    pad: float,
) -> Bool[Tensor, "*batch point"]:
    x, y = pixels.unbind(-1)
    inside_x = (x >= -pad) & (x <= width + pad)
    inside_y = (y >= -pad) & (y <= height + pad)
    return (depths > 1e-6) & inside_x & inside_y


def _sample(
    maps: Float[Tensor, "batch view channel height width"],
    grid: Float[Tensor, "batch view point 2"],
    rays_samples: dict[str, int],
) -> Float[Tensor, "batch view ray sample channel"]:
    flat_grid = rearrange(grid, "b v (r s) c -> (b v) r s c", **rays_samples)
    sampled = F.grid_sample(
        maps.flatten(0, 1),
        flat_grid.to(maps.dtype),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    return rearrange(sampled, "(b v) c r s -> b v r s c", b=grid.shape[0])
