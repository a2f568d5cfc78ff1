"""Depth maps that agree become one cloud of coloured points.

A pixel's point is kept if enough other renderings put their surface where it is, and takes the mean
of their places and colours (after Galliani et al., "Massively parallel multiview stereopsis by
surface normal diffusion", ICCV 2015). One point is left for each cell of a grid as fine as the
pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.cameras import Cameras, project, unproject
from utils.rays import pixel_grid, view_grid

_MIN_DEPTH = 1e-6


@dataclass(frozen=True)
class Renderings:
    """Pictures of one scene with their depths."""

    cameras: Cameras
    """Batch axes ``(view,)``; intrinsics of the pictures."""
    rgb: Float[Tensor, "view 3 height width"]
    depth: Float[Tensor, "view height width"]
    solid: Bool[Tensor, "view height width"]
    """Pixels that have a depth."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.depth.shape[-2], self.depth.shape[-1]


@dataclass(frozen=True)
class PointCloud:
    """Coloured points in the world."""

    points: Float[Tensor, "point 3"]
    colors: Float[Tensor, "point 3"]
    """RGB in [0, 1]."""


def fuse_points(renderings: Renderings, tolerance: float, min_agreeing: int) -> PointCloud:
    """Lift all renderings and keep what others confirm.

    Args:
        renderings: Two or more, unless nobody need agree.
        tolerance: Depths agree if they differ by no more than this share.
        min_agreeing: How many others must agree on a point.
    """
    clouds = [
        _confirmed_points(renderings, view, tolerance, min_agreeing)
        for view in range(len(renderings.depth))
    ]
    points = torch.cat([cloud.points for cloud in clouds])
    colors = torch.cat([cloud.colors for cloud in clouds])
    return thin_out(PointCloud(points, colors), pixel_footprint(renderings))


@dataclass(frozen=True)
class Agreement:
    """What all renderings say of the pixels of one of them."""

    others: Int[Tensor, " pixel"]
    """How many others agree; -1 where the pixel has no depth."""
    cloud: PointCloud
    """One point for each pixel: the mean over the rendering itself and those that agree."""


def consistent_pixels(renderings: Renderings, view: int, tolerance: float) -> Agreement:
    """Ask all renderings about the pixels of one of them."""
    pixels = pixel_grid(*renderings.size, renderings.depth.device)
    camera = renderings.cameras[view]
    points = unproject(pixels, renderings.depth[view].flatten(), camera)
    others = [other for other in range(len(renderings.depth)) if other != view]
    agreeing = points.new_zeros(len(points), dtype=torch.long)
    places, colors = points.clone(), renderings.rgb[view].flatten(1).T.clone()
    for other in others:
        theirs, seen_depth, depth = _look_up(renderings, other, points)
        agrees = (seen_depth > 0) & ((seen_depth - depth).abs() < tolerance * depth)
        agreeing += agrees
        places += torch.where(agrees[:, None], theirs.points, 0.0)
        colors += torch.where(agrees[:, None], theirs.colors, 0.0)
    count = 1 + agreeing[:, None]
    agreeing = torch.where(renderings.solid[view].flatten(), agreeing, -1)
    return Agreement(agreeing, PointCloud(places / count, colors / count))


def sample_depths(
    depth: Float[Tensor, "height width"],
    solid: Bool[Tensor, "height width"],
    pixels: Float[Tensor, "point 2"],
) -> Float[Tensor, " point"]:
    """Read the depth of the pixel that holds a position; it is 0 where there is none."""
    return _sample(torch.where(solid, depth, 0.0)[None], pixels)[:, 0]


def pixel_footprint(renderings: Renderings) -> float:
    """Return the size of a pixel on the surface, the median of all renderings."""
    solid = renderings.solid
    if not solid.any():
        return 1.0
    focal = renderings.cameras.intrinsics[:, 0, 0]
    sizes = (renderings.depth / focal[:, None, None])[solid]
    return sizes[:: max(1, len(sizes) // 100_000)].median().item()


def thin_out(cloud: PointCloud, cell: float) -> PointCloud:
    """Leave one point, the mean, in each cell of a grid."""
    if not len(cloud.points):
        return cloud
    cells = (cloud.points / cell).floor().long()
    _, place, counts = cells.unique(dim=0, return_inverse=True, return_counts=True)

    def mean(values: Float[Tensor, "point 3"]) -> Float[Tensor, "cell 3"]:
        total = values.new_zeros(len(counts), 3).index_add_(0, place, values)
        return total / counts[:, None]

    return PointCloud(mean(cloud.points), mean(cloud.colors))


def _confirmed_points(
    renderings: Renderings, view: int, tolerance: float, min_agreeing: int
) -> PointCloud:
    agreement = consistent_pixels(renderings, view, tolerance)
    kept = agreement.others >= min_agreeing
    return PointCloud(agreement.cloud.points[kept], agreement.cloud.colors[kept])


def _look_up(
    renderings: Renderings, view: int, points: Float[Tensor, "point 3"]
) -> tuple[PointCloud, Float[Tensor, " point"], Float[Tensor, " point"]]:
    """Return the surface that a view sees where points appear in it, and both depths."""
    camera = renderings.cameras[view]
    pixels, depth = project(points, camera)
    seen = sample_depths(renderings.depth[view], renderings.solid[view], pixels)
    seen = torch.where(depth > _MIN_DEPTH, seen, 0.0)
    surface = PointCloud(unproject(pixels, seen, camera), _sample(renderings.rgb[view], pixels))
    return surface, seen, depth


def _sample(
    maps: Float[Tensor, "channel height width"], pixels: Float[Tensor, "point 2"]
) -> Float[Tensor, "point channel"]:
    """Read the pixel that holds a position: between two there may be an edge.

    Beyond the border everything is 0.
    """
    grid = view_grid(pixels, (maps.shape[1], maps.shape[2]))[None, None]
    return F.grid_sample(maps[None], grid, "nearest", "zeros", align_corners=False)[0, :, 0].T
