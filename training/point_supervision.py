"""What teaches a point regression: points on the true surfaces and points of a bounding box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float
from torch import Tensor

from datasets.views import Sample, Views
from models.baselines.point_regression import PointRegression
from models.ray_sampling import DepthPlanes
from training.losses import masked_mean
from training.pixels import draw_pixels, pixel_colors
from utils.cameras import Cameras, project, rotate, unproject, view_grid


@dataclass(frozen=True)
class SurfacePoints:
    """Points that pixels with true depth show."""

    points: Float[Tensor, "batch point 3"]
    colors: Float[Tensor, "batch point 3"]
    known: Bool[Tensor, "batch point"]


def draw_surface_points(views: Views, count: int, generator: torch.Generator) -> SurfacePoints:
    """Lift random pixels of one image for each scene to the surface that they show."""
    pixels, places = draw_pixels(views, count, generator)
    depths = views.depths.flatten(1).gather(1, places)
    known = (depths > 0) & views.masks.flatten(1).gather(1, places)
    points = unproject(pixels, depths, views.cameras)
    return SurfacePoints(points, pixel_colors(views, places), known)


def draw_box_points(
    cameras: Cameras,
    near_far: Float[Tensor, "batch 2"],
    size: tuple[int, int],
    count: int,
    generator: torch.Generator,
) -> Float[Tensor, "batch point 3"]:
    """Draw world points evenly in the box around what each camera ``(batch,)`` sees.

    The box has the axes of the camera and reaches from near to far.
    """
    height, width = size
    corners = near_far.new_tensor([[0.0, 0.0], [width, height]])
    far, near = near_far[:, 1:], near_far[:, :1]
    at_far = unproject(corners, far.expand(-1, 2), Cameras(cameras.intrinsics, _identity(cameras)))
    low = torch.cat([at_far[:, 0, :2], near], -1)[:, None]
    high = torch.cat([at_far[:, 1, :2], far], -1)[:, None]
    shape = (len(near_far), count, 3)
    drawn = torch.rand(shape, generator=generator, device=near_far.device)
    return rotate(low + drawn * (high - low), cameras) + cameras.centers[:, None]


def label_points(
    points: Float[Tensor, "batch point 3"], views: Views, planes: DepthPlanes
) -> tuple[Bool[Tensor, "batch point"], Bool[Tensor, "batch point"]]:
    """Tell by true depth which points lie in empty space and which on a surface.

    Empty is what lies in front of the surface that some view ``(batch, view)`` shows, by more than
    the spacing of ``planes``; behind all surfaces nothing is known.
    """
    pixels, z = project(points[:, None], views.cameras)
    grid = view_grid(pixels, views.size)
    depths = F.grid_sample(
        views.depths.flatten(0, 1)[:, None],
        grid.clamp(-2, 2).flatten(0, 1)[:, None],
        mode="nearest",
        align_corners=False,
    ).view_as(z)
    seen = (grid.abs() <= 1).all(-1) & (z > 0) & (depths > 0)
    behind = (planes.coordinates(z) - planes.coordinates(depths)) * planes.count
    empty = (seen & (behind < -1)).any(1)
    return empty, (seen & (behind.abs() <= 1)).any(1) & ~empty


def point_losses(
    model: PointRegression, batch: Sample, count: int, generator: torch.Generator
) -> dict[str, Float[Tensor, ""]]:
    """Compare ``count`` points on the surface of each target and as many of the box with the truth.

    Returns the error of the opacity (cross-entropy), the squared error of the colour on surfaces,
    and the share of the points of the box that lie on one.
    """
    planes = DepthPlanes(batch.near_far, model.config.ray_samples, model.config.ray_lindisp)
    views, scene = _all_views(batch), model.encode(batch.sources, batch.near_far)
    terms: dict[str, list[Tensor]] = {"opacity": [], "fine": [], "surface_share": []}
    for place in range(batch.targets.images.shape[1]):
        target = batch.targets[:, place]
        surface = draw_surface_points(target, count, generator)
        box = draw_box_points(target.cameras, batch.near_far, target.size, count, generator)
        empty, solid = label_points(box, views, planes)
        logits, colors = model.query(scene, torch.cat([surface.points, box], 1))
        on, off = logits.split(count, 1)
        missed = masked_mean(F.softplus(-on), surface.known)
        wrong = F.binary_cross_entropy_with_logits(off, solid.to(off), reduction="none")
        terms["opacity"].append((missed + masked_mean(wrong, empty | solid)) / 2)
        error = (colors[:, :count] - surface.colors).square().mean(-1)
        terms["fine"].append(masked_mean(error, surface.known))
        terms["surface_share"].append(masked_mean(solid.float(), empty | solid))
    return {name: torch.stack(values).mean() for name, values in terms.items()}


def _all_views(batch: Sample) -> Views:
    """Put targets and sources together along the axis of views."""
    both = batch.targets, batch.sources
    cameras = Cameras(
        torch.cat([part.cameras.intrinsics for part in both], 1),
        torch.cat([part.cameras.c2w for part in both], 1),
    )
    images, depths, masks = (
        torch.cat([getattr(part, name) for part in both], 1)
        for name in ("images", "depths", "masks")
    )
    return Views(images, cameras, depths, masks)


def _identity(cameras: Cameras) -> Float[Tensor, "batch 4 4"]:
    return torch.eye(4, device=cameras.c2w.device).expand_as(cameras.c2w)
