"""Rendered depths become files: a cloud of coloured points, and a triangle mesh.

Points: a pixel's point is kept if enough other renderings have a surface there, and becomes the
mean of theirs (after Galliani et al., "Massively parallel multiview stereopsis by surface normal
diffusion", ICCV 2015). One point is left for each cell of a grid as fine as the pixels.

Mesh: the signed distance to the surface, truncated a little in front and behind, is averaged over
all renderings in a grid (Curless and Levoy, "A volumetric method for building complex models from
range images", SIGGRAPH 1996); marching cubes (Lorensen and Cline, SIGGRAPH 1987) finds its zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import trimesh
from jaxtyping import Bool, Float
from skimage.measure import marching_cubes
from torch import Tensor

from apps.rendering.frames import Job
from apps.rendering.geometry_files import PointCloud
from apps.rendering.paths import CameraPath
from models.scenes.cross_fade import SourceSet
from models.scenes.renderable_scene import RenderableScene, RenderedView
from utils.cameras import Cameras, pixel_grid, project, unproject, view_grid
from utils.trajectories import path_intrinsics

_MIN_DEPTH = 1e-6
_TRUNCATION = 4.0
"""Cells in front of and behind a surface in which its distance counts."""
_EXTENT = (0.005, 0.995)
"""Quantiles of the points, along each axis, between which the grid lies."""
_MARGIN = 0.05
_SLAB = 1 << 20
"""Grid points that are processed at once."""
_SMALLEST_PART = 0.02
"""Parts with a smaller share of all faces are dropped as noise."""


@dataclass(frozen=True)
class Renderings:
    """Rendered views of one scene with their depths."""

    cameras: Cameras
    """Batch axes ``(view,)``; intrinsics of the renderings."""
    rgb: Float[Tensor, "view 3 height width"]
    depth: Float[Tensor, "view height width"]
    solid: Bool[Tensor, "view height width"]
    """Pixels that have a depth."""

    def seen_from(
        self, view: int, points: Float[Tensor, "point 3"]
    ) -> tuple[Float[Tensor, "point 2"], Float[Tensor, " point"], Float[Tensor, " point"]]:
        """Return points' pixels in a view, their depths, and those of the surface it sees there.

        The surface's depth is 0 where the view sees none.
        """
        pixels, depths = project(points, self.cameras[view])
        seen = _read_pixels(torch.where(self.solid[view], self.depth[view], 0.0)[None], pixels)
        return pixels, depths, torch.where(depths > _MIN_DEPTH, seen[:, 0], 0.0)


def source_job(scene: RenderableScene, size: tuple[int, int], most: int) -> Job:
    """Plan to render a scene from its own cameras, each from its nearest sources."""
    sources = scene.cameras
    count = min(most, len(sources.c2w))
    indices = torch.linspace(0, len(sources.c2w) - 1, count).round().long()
    intrinsics = [
        path_intrinsics(sources.intrinsics[index, None], scene.image_size, size)
        for index in indices.tolist()
    ]
    cameras = Cameras(torch.stack(intrinsics), sources.c2w[indices])
    sets = tuple((SourceSet(one, 1.0),) for one in scene.choose_sources(cameras, size))
    return Job(scene, CameraPath(cameras, size, closed=False), sets)


def gather(job: Job, views: Iterable[RenderedView]) -> Renderings:
    """Bring finished frames together."""
    maps = zip(*((view.rgb, view.depth, view.solid) for view in views), strict=True)
    return Renderings(job.path.cameras, *map(torch.stack, maps))


def fuse_points(renderings: Renderings, tolerance: float, min_agreeing: int) -> PointCloud:
    """Lift all renderings and keep the points on which at least ``min_agreeing`` others agree.

    Depths agree if they differ by no more than the share ``tolerance``.
    """
    views = range(len(renderings.depth))
    clouds = [_confirmed_points(renderings, view, tolerance, min_agreeing) for view in views]
    points = torch.cat([cloud.points for cloud in clouds])
    colors = torch.cat([cloud.colors for cloud in clouds])
    if not len(points):
        return PointCloud(points, colors)
    cells = (points / pixel_footprint(renderings)).floor().long()
    _, cell_of_point, counts = cells.unique(dim=0, return_inverse=True, return_counts=True)
    both = torch.cat([points, colors], 1)
    means = both.new_zeros(len(counts), 6).index_add_(0, cell_of_point, both) / counts[:, None]
    return PointCloud(means[:, :3], means[:, 3:])


def pixel_footprint(renderings: Renderings) -> float:
    """Return the size of a pixel on the surface, the median of all renderings."""
    if not renderings.solid.any():
        return 1.0
    focal = renderings.cameras.intrinsics[:, 0, 0]
    sizes = (renderings.depth / focal[:, None, None])[renderings.solid]
    return sizes[:: max(1, len(sizes) // 100_000)].median().item()


def fuse_mesh(renderings: Renderings, cloud: PointCloud, resolution: int) -> trimesh.Trimesh:
    """Return the surface that renderings see around nearly all points; it may have no faces.

    The grid around the points has ``resolution`` cells along its longest side.
    """
    low, high = np.quantile(cloud.points.cpu().double().numpy(), _EXTENT, axis=0)
    margin = _MARGIN * (high - low).max()
    low, high = low - margin, high + margin
    cell = float((high - low).max() / resolution)
    counts = [int(count) for count in np.ceil((high - low) / cell) + 1]
    origin = torch.from_numpy(low).to(cloud.points)
    x, y, z = (torch.arange(count) for count in counts)
    slabs = []
    for layers in x.split(max(1, _SLAB // (counts[1] * counts[2]))):
        points = origin + cell * torch.cartesian_prod(layers, y, z).to(origin)
        slabs.append(_signed_distances(renderings, points, cell))
    distances = torch.cat([slab[0] for slab in slabs]).reshape(counts).cpu().numpy()
    seen = torch.cat([slab[1] for slab in slabs]).reshape(counts).cpu().numpy() > 0
    if not (distances[seen] < 0).any() or not (distances[seen] > 0).any():
        return trimesh.Trimesh()
    vertices, faces, _, _ = marching_cubes(distances, 0.0, allow_degenerate=False)
    # A surface beside grid points that no rendering sees is only the border of what is known.
    low, high = np.floor(vertices).astype(int), np.ceil(vertices).astype(int)
    known = seen[tuple(low.T)] & seen[tuple(high.T)]
    faces = faces[known[faces].all(1)]
    points = origin + cell * torch.from_numpy(vertices.copy()).to(origin)
    colors = PointCloud(points, _mean_colors(renderings, points, cell)).color_bytes
    # Marching cubes turns faces towards rising values: here that is towards the cameras.
    mesh = trimesh.Trimesh(points.cpu().numpy(), faces, vertex_colors=colors, process=False)
    return _without_small_parts(mesh)


def _confirmed_points(
    renderings: Renderings, view: int, tolerance: float, min_agreeing: int
) -> PointCloud:
    """Return a view's points on which others agree, each the mean of all that do."""
    depth, rgb = renderings.depth[view], renderings.rgb[view]
    pixels = pixel_grid(depth.shape[0], depth.shape[1], depth.device)
    points = unproject(pixels, depth.flatten(), renderings.cameras[view])
    agreeing = points.new_zeros(len(points), 1, dtype=torch.long)
    point_sums, color_sums = points.clone(), rgb.flatten(1).T.clone()
    for other in range(len(renderings.depth)):
        if other == view:
            continue
        pixels, depths, seen = renderings.seen_from(other, points)
        agrees = ((seen > 0) & ((seen - depths).abs() < tolerance * depths))[:, None]
        surface = unproject(pixels, seen, renderings.cameras[other])
        agreeing += agrees
        point_sums += torch.where(agrees, surface, 0.0)
        color_sums += torch.where(agrees, _read_pixels(renderings.rgb[other], pixels), 0.0)
    kept = renderings.solid[view].flatten() & (agreeing[:, 0] >= min_agreeing)
    count = 1 + agreeing[kept]
    return PointCloud(point_sums[kept] / count, color_sums[kept] / count)


def _signed_distances(
    renderings: Renderings, points: Float[Tensor, "point 3"], cell: float
) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
    """Return the mean distance in front of the surface, in truncations, and by how many views."""
    total, count = points.new_zeros(len(points)), points.new_zeros(len(points))
    for view in range(len(renderings.depth)):
        _, depths, seen = renderings.seen_from(view, points)
        distances = (seen - depths) / (_TRUNCATION * cell)
        counted = (seen > 0) & (distances > -1)
        total += torch.where(counted, distances.clamp(max=1), 0.0)
        count += counted
    return torch.where(count > 0, total / count.clamp_min(1), 1.0), count


def _mean_colors(
    renderings: Renderings, points: Float[Tensor, "point 3"], cell: float
) -> Float[Tensor, "point 3"]:
    """Return the mean colour in the renderings that see the points."""
    total, count = torch.zeros_like(points), points.new_full((len(points), 1), 1e-6)
    for view in range(len(renderings.depth)):
        pixels, depths, seen = renderings.seen_from(view, points)
        visible = ((seen > 0) & ((seen - depths).abs() < _TRUNCATION * cell))[:, None]
        total += torch.where(visible, _read_pixels(renderings.rgb[view], pixels), 0.0)
        count += visible
    return total / count


def _read_pixels(
    maps: Float[Tensor, "channel height width"], pixels: Float[Tensor, "point 2"]
) -> Float[Tensor, "point channel"]:
    """Read the pixel that holds a position, without interpolation across edges; outside it is 0."""
    grid = view_grid(pixels, (maps.shape[1], maps.shape[2]))[None, None]
    return F.grid_sample(maps[None], grid, "nearest", "zeros", align_corners=False)[0, :, 0].T


def _without_small_parts(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Drop small separate parts, and vertices without a face."""
    if not len(mesh.faces):
        return trimesh.Trimesh()
    labels = trimesh.graph.connected_component_labels(mesh.face_adjacency, len(mesh.faces))
    sizes = np.bincount(labels)
    mesh.update_faces(sizes[labels] >= _SMALLEST_PART * len(mesh.faces))
    mesh.remove_unreferenced_vertices()
    return mesh
