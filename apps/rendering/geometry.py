"""Fusion of rendered depth maps into a point cloud and a triangle mesh.

Points: the point of a pixel is kept if enough other depth maps agree on it, and is averaged with
theirs (after Galliani et al., "Massively parallel multiview stereopsis by surface normal
diffusion", ICCV 2015). Points within a cell of the size of a pixel's footprint are merged.

Mesh: truncated signed distances are averaged over all depth maps in a grid (Curless and Levoy, "A
volumetric method for building complex models from range images", SIGGRAPH 1996); marching cubes
(Lorensen and Cline, SIGGRAPH 1987) extracts the zero level set.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import trimesh
from jaxtyping import Float
from skimage.measure import marching_cubes
from torch import Tensor

from apps.rendering.frames import RenderingJob
from apps.rendering.geometry_files import PointCloud, Renderings
from apps.rendering.paths import CameraPath
from models.scenes.cross_fade import SourceSet
from models.scenes.renderable_scene import RenderableScene, RenderedView
from utils.cameras import Cameras, pixel_grid, project, unproject, view_grid
from utils.trajectories import path_intrinsics

_MIN_DEPTH = 1e-6
_TRUNCATION = 4.0
"""Truncation distance of signed distances, in grid cells."""
_EXTENT = (0.005, 0.995)
"""Quantiles of the points, along each axis, that bound the grid."""
_MARGIN = 0.05
_SLAB_POINTS = 1 << 20
"""Grid points that are processed at once."""
_MIN_COMPONENT = 0.02
"""Connected components with a smaller share of the faces are removed as noise."""


def source_view_job(
    scene: RenderableScene, size: tuple[int, int], max_renderings: int
) -> RenderingJob:
    """Plan renderings from the source cameras, each from its nearest sources."""
    num_sources = len(scene.cameras.c2w)
    count = min(max_renderings, num_sources)
    rendered = scene.cameras[torch.linspace(0, num_sources - 1, count).round().long()]
    intrinsics = [path_intrinsics(k[None], scene.image_size, size) for k in rendered.intrinsics]
    cameras = Cameras(torch.stack(intrinsics), rendered.c2w)
    sources = tuple((SourceSet(indices, 1.0),) for indices in scene.choose_sources(cameras, size))
    return RenderingJob(scene, CameraPath(cameras, size, closed=False), sources)


def stack_renderings(cameras: Cameras, views: Iterable[RenderedView]) -> Renderings:
    """Stack the views rendered from cameras."""
    maps = zip(*((view.rgb, view.depth, view.solid) for view in views), strict=True)
    return Renderings(cameras, *map(torch.stack, maps))


def fuse_points(renderings: Renderings, tolerance: float, min_agreeing: int) -> PointCloud:
    """Unproject all depth maps and keep the points on which ``min_agreeing`` others agree.

    ``tolerance`` is the largest relative difference of two depths that agree.
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
    """Return the median size of a pixel on the surface, in scene units."""
    if not renderings.solid.any():
        return 1.0
    focal = renderings.cameras.intrinsics[:, 0, 0]
    sizes = (renderings.depth / focal[:, None, None])[renderings.solid]
    return sizes[:: max(1, len(sizes) // 100_000)].median().item()


def fuse_mesh(renderings: Renderings, cloud: PointCloud, resolution: int) -> trimesh.Trimesh:
    """Fuse depth maps in a grid around the points; the mesh may have no faces.

    The grid has ``resolution`` cells along its longest side.
    """
    low, high = np.quantile(cloud.points.cpu().double().numpy(), _EXTENT, axis=0)
    margin = _MARGIN * (high - low).max()
    low, high = low - margin, high + margin
    cell = float((high - low).max() / resolution)
    counts = [int(count) for count in np.ceil((high - low) / cell) + 1]
    origin = torch.from_numpy(low).to(cloud.points)
    x, y, z = (torch.arange(count) for count in counts)
    slabs = []
    for layers in x.split(max(1, _SLAB_POINTS // (counts[1] * counts[2]))):
        points = origin + cell * torch.cartesian_prod(layers, y, z).to(origin)
        slabs.append(_signed_distances(renderings, points, cell))
    distances = torch.cat([slab[0] for slab in slabs]).reshape(counts).cpu().numpy()
    seen = torch.cat([slab[1] for slab in slabs]).reshape(counts).cpu().numpy() > 0
    if not (distances[seen] < 0).any() or not (distances[seen] > 0).any():
        return trimesh.Trimesh()
    vertices, faces, _, _ = marching_cubes(distances, 0.0, allow_degenerate=False)
    # Next to unobserved grid points the zero crossing is the border of the observed region.
    low, high = np.floor(vertices).astype(int), np.ceil(vertices).astype(int)
    observed = seen[tuple(low.T)] & seen[tuple(high.T)]
    faces = faces[observed[faces].all(1)]
    points = origin + cell * torch.from_numpy(vertices.copy()).to(origin)
    colors = PointCloud(points, _mean_colors(renderings, points, cell)).color_bytes
    # Marching cubes orients faces towards increasing values, here towards the cameras.
    mesh = trimesh.Trimesh(points.cpu().numpy(), faces, vertex_colors=colors, process=False)
    return _without_small_components(mesh)


def _surface_depths(
    renderings: Renderings, view: int, points: Float[Tensor, "point 3"]
) -> tuple[Float[Tensor, "point 2"], Float[Tensor, " point"], Float[Tensor, " point"]]:
    """Return the points' pixels in a view, their z-depths, and the rendered depth at the pixels.

    The rendered depth is 0 where it is invalid.
    """
    pixels, depths = project(points, renderings.cameras[view])
    valid_depth = torch.where(renderings.solid[view], renderings.depth[view], 0.0)
    rendered = _read_pixels(valid_depth[None], pixels)[:, 0]
    return pixels, depths, torch.where(depths > _MIN_DEPTH, rendered, 0.0)


def _confirmed_points(
    renderings: Renderings, view: int, tolerance: float, min_agreeing: int
) -> PointCloud:
    """Return a view's points on which others agree, each averaged over the agreeing views."""
    depth, rgb = renderings.depth[view], renderings.rgb[view]
    pixels = pixel_grid(depth.shape[0], depth.shape[1], depth.device)
    points = unproject(pixels, depth.flatten(), renderings.cameras[view])
    agreeing = points.new_zeros(len(points), 1, dtype=torch.long)
    point_sums, color_sums = points.clone(), rgb.flatten(1).T.clone()
    for other in range(len(renderings.depth)):
        if other == view:
            continue
        pixels, depths, rendered = _surface_depths(renderings, other, points)
        agrees = ((rendered > 0) & ((rendered - depths).abs() < tolerance * depths))[:, None]
        surface = unproject(pixels, rendered, renderings.cameras[other])
        agreeing += agrees
        point_sums += torch.where(agrees, surface, 0.0)
        color_sums += torch.where(agrees, _read_pixels(renderings.rgb[other], pixels), 0.0)
    kept = renderings.solid[view].flatten() & (agreeing[:, 0] >= min_agreeing)
    count = 1 + agreeing[kept]
    return PointCloud(point_sums[kept] / count, color_sums[kept] / count)


def _signed_distances(
    renderings: Renderings, points: Float[Tensor, "point 3"], cell: float
) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
    """Return the mean truncated signed distance in [-1, 1], and the number of observing views."""
    total, count = points.new_zeros(len(points)), points.new_zeros(len(points))
    for view in range(len(renderings.depth)):
        _, depths, rendered = _surface_depths(renderings, view, points)
        distances = (rendered - depths) / (_TRUNCATION * cell)
        observed = (rendered > 0) & (distances > -1)
        total += torch.where(observed, distances.clamp(max=1), 0.0)
        count += observed
    return torch.where(count > 0, total / count.clamp_min(1), 1.0), count


def _mean_colors(
    renderings: Renderings, points: Float[Tensor, "point 3"], cell: float
) -> Float[Tensor, "point 3"]:
    """Return the mean colour over the renderings in which the points are visible."""
    total, count = torch.zeros_like(points), points.new_full((len(points), 1), 1e-6)
    for view in range(len(renderings.depth)):
        pixels, depths, rendered = _surface_depths(renderings, view, points)
        visible = ((rendered > 0) & ((rendered - depths).abs() < _TRUNCATION * cell))[:, None]
        total += torch.where(visible, _read_pixels(renderings.rgb[view], pixels), 0.0)
        count += visible
    return total / count


def _read_pixels(
    maps: Float[Tensor, "channel height width"], pixels: Float[Tensor, "point 2"]
) -> Float[Tensor, "point channel"]:
    """Sample the nearest pixel; 0 outside of the image."""
    grid = view_grid(pixels, (maps.shape[1], maps.shape[2]))[None, None]
    return F.grid_sample(maps[None], grid, "nearest", "zeros", align_corners=False)[0, :, 0].T


def _without_small_components(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Remove small connected components and unreferenced vertices."""
    if not len(mesh.faces):
        return trimesh.Trimesh()
    labels = trimesh.graph.connected_component_labels(mesh.face_adjacency, len(mesh.faces))
    sizes = np.bincount(labels)
    mesh.update_faces(sizes[labels] >= _MIN_COMPONENT * len(mesh.faces))
    mesh.remove_unreferenced_vertices()
    return mesh
