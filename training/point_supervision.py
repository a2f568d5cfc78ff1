"""Losses of the point regression at points on true surfaces and in the viewing volume."""

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
from training.ray_batches import draw_pixels, pixel_colors
from utils.cameras import Cameras, pixel_directions, project, rotate, unproject, view_grid


@dataclass(frozen=True)
class SurfacePoints:
    """Surface points of pixels; ``known`` marks those with true depth."""

    points: Float[Tensor, "batch point 3"]
    colors: Float[Tensor, "batch point 3"]
    known: Bool[Tensor, "batch point"]


def draw_surface_points(views: Views, count: int, generator: torch.Generator) -> SurfacePoints:
    """Unproject random pixels of each view ``(batch,)`` by their true depth."""
    pixels, indices = draw_pixels(views, count, generator)
    depths = views.depths.flatten(1).gather(1, indices)
    known = (depths > 0) & views.masks.flatten(1).gather(1, indices)
    points = unproject(pixels, depths, views.cameras)
    return SurfacePoints(points, pixel_colors(views, indices), known)


def draw_box_points(
    cameras: Cameras,
    near_far: Float[Tensor, "batch 2"],
    size: tuple[int, int],
    count: int,
    generator: torch.Generator,
) -> Float[Tensor, "batch point 3"]:
    """Draw world points uniformly in the bounding box of each camera's frustum.

    The box is aligned with the axes of the camera ``(batch,)`` and extends from near to far.
    """
    height, width = size
    corners = near_far.new_tensor([[0.0, 0.0], [width, height]])
    near, far = near_far[:, :1], near_far[:, 1:]
    far_corners = pixel_directions(corners, cameras.intrinsics) * far[..., None]
    low = torch.cat([far_corners[:, 0, :2], near], -1)[:, None]
    high = torch.cat([far_corners[:, 1, :2], far], -1)[:, None]
    shape = (len(near_far), count, 3)
    drawn = torch.rand(shape, generator=generator, device=near_far.device)
    return rotate(low + drawn * (high - low), cameras) + cameras.centers[:, None]


def label_points(
    points: Float[Tensor, "batch point 3"], views: Views, planes: DepthPlanes
) -> tuple[Bool[Tensor, "batch point"], Bool[Tensor, "batch point"]]:
    """Return by true depth which points are in empty space, and which are on a surface.

    A point is empty if it lies in front of the surface in some view ``(batch, view)``, by more than
    the spacing of ``planes``. Points behind all surfaces are neither.
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
    """Evaluate the model at ``count`` surface points and as many box points of each target.

    Returns ``opacity`` (cross-entropy), ``fine`` (squared colour error on surfaces) and
    ``surface_share`` (share of the labelled box points that are on a surface).
    """
    planes = DepthPlanes(batch.near_far, model.config.ray_samples, model.config.ray_lindisp)
    views, scene = _all_views(batch), model.encode(batch.sources, batch.near_far)
    terms: dict[str, list[Tensor]] = {"opacity": [], "fine": [], "surface_share": []}
    for index in range(batch.targets.cameras.shape[1]):
        target = batch.targets[:, index]
        surface = draw_surface_points(target, count, generator)
        box = draw_box_points(target.cameras, batch.near_far, target.size, count, generator)
        empty, solid = label_points(box, views, planes)
        logits, colors = model.query(scene, torch.cat([surface.points, box], 1))
        on_surface, in_box = logits.split(count, 1)
        surface_error = masked_mean(F.softplus(-on_surface), surface.known)
        box_errors = F.binary_cross_entropy_with_logits(in_box, solid.to(in_box), reduction="none")
        box_error = masked_mean(box_errors, empty | solid)
        terms["opacity"].append((surface_error + box_error) / 2)
        error = (colors[:, :count] - surface.colors).square().mean(-1)
        terms["fine"].append(masked_mean(error, surface.known))
        terms["surface_share"].append(masked_mean(solid.float(), empty | solid))
    return {name: torch.stack(values).mean() for name, values in terms.items()}


def _all_views(batch: Sample) -> Views:
    """Concatenate targets and sources along the view axis."""
    both = batch.targets, batch.sources
    return Views(
        images=torch.cat([views.images for views in both], 1),
        cameras=Cameras(
            torch.cat([views.cameras.intrinsics for views in both], 1),
            torch.cat([views.cameras.c2w for views in both], 1),
        ),
        depths=torch.cat([views.depths for views in both], 1),
        masks=torch.cat([views.masks for views in both], 1),
    )
