"""Depth maps become one triangle mesh.

The signed distance to the surface is averaged over all renderings in a grid, cut off a little way
in front and behind (Curless and Levoy, "A volumetric method for building complex models from range
images", SIGGRAPH 1996); marching cubes (Lorensen and Cline, SIGGRAPH 1987) finds the surface.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float
from skimage.measure import marching_cubes
from torch import Tensor

from apps.rendering.fusion import PointCloud, Renderings, sample_depths
from utils.cameras import project

_TRUNCATION = 4.0
"""Cells in front of and behind a surface in which its distance counts."""
_EDGES = (0.005, 0.995)
"""Quantiles of the points, along each axis, between which the grid lies."""
_MARGIN = 0.05
_SLAB = 1 << 20
"""Grid points that are worked on at once."""
_SMALLEST_PART = 0.02
"""Parts with a smaller share of all faces are taken for noise."""


@dataclass(frozen=True)
class Grid:
    """Regular points in the world."""

    origin: Float[Tensor, " 3"]
    cell: float
    counts: tuple[int, int, int]

    def points(self, first: int, last: int) -> Float[Tensor, "point 3"]:
        """Return the points of some layers along the first axis."""
        x = torch.arange(first, last)
        y, z = torch.arange(self.counts[1]), torch.arange(self.counts[2])
        steps = torch.stack(torch.meshgrid(x, y, z, indexing="ij"), -1).flatten(0, 2)
        return self.origin + self.cell * steps.to(self.origin)


def grid_around(cloud: PointCloud, resolution: int) -> Grid:
    """Return a grid around nearly all points, with ``resolution`` cells along its longest side."""
    array = cloud.points.cpu().double().numpy()
    low, high = np.quantile(array, _EDGES, axis=0)
    margin = _MARGIN * (high - low).max()
    low, high = low - margin, high + margin
    cell = float((high - low).max() / resolution)
    counts = np.ceil((high - low) / cell).astype(int) + 1
    origin = torch.from_numpy(low).to(cloud.points)
    return Grid(origin, cell, (int(counts[0]), int(counts[1]), int(counts[2])))


def fuse_mesh(renderings: Renderings, grid: Grid) -> trimesh.Trimesh:
    """Return the surface that the renderings see inside a grid, coloured; it may have no faces."""
    layers = max(1, _SLAB // (grid.counts[1] * grid.counts[2]))
    slabs = [
        _signed_distances(renderings, grid.points(first, min(first + layers, grid.counts[0])), grid)
        for first in range(0, grid.counts[0], layers)
    ]
    distances = torch.cat([slab[0] for slab in slabs]).reshape(grid.counts).cpu().numpy()
    seen = torch.cat([slab[1] for slab in slabs]).reshape(grid.counts).cpu().numpy() > 0
    if not (distances[seen] < 0).any() or not (distances[seen] > 0).any():
        return trimesh.Trimesh()
    vertices, faces, _, _ = marching_cubes(distances, 0.0, allow_degenerate=False)
    faces = faces[_between_seen(vertices, seen)[faces].all(1)]
    points = grid.origin + grid.cell * torch.from_numpy(vertices.copy()).to(grid.origin)
    colors = (_colors(renderings, points, grid.cell) * 255).round().byte().cpu().numpy()
    # Marching cubes turns faces towards rising values: here that is towards the cameras.
    mesh = trimesh.Trimesh(points.cpu().numpy(), faces, vertex_colors=colors, process=False)
    return _without_specks(mesh)


def _signed_distances(
    renderings: Renderings, points: Float[Tensor, "point 3"], grid: Grid
) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
    """Return the mean distance in front of the surface, in truncations, and by how many views."""
    total, count = points.new_zeros(len(points)), points.new_zeros(len(points))
    for view in range(len(renderings.depth)):
        pixels, depths = project(points, renderings.cameras[view])
        seen = sample_depths(renderings.depth[view], renderings.solid[view], pixels)
        distances = (seen - depths) / (_TRUNCATION * grid.cell)
        counts = (seen > 0) & (depths > 0) & (distances > -1)
        total += torch.where(counts, distances.clamp(max=1), 0.0)
        count += counts
    return torch.where(count > 0, total / count.clamp_min(1), 1.0), count


def _between_seen(
    vertices: Float[np.ndarray, "vertex 3"], seen: Bool[np.ndarray, "x y z"]
) -> Bool[np.ndarray, " vertex"]:
    """Tell which vertices lie between two grid points of which something is known.

    A surface anywhere else is only the border of what the renderings say.
    """
    low, high = np.floor(vertices).astype(int), np.ceil(vertices).astype(int)
    return seen[tuple(low.T)] & seen[tuple(high.T)]


def _colors(
    renderings: Renderings, points: Float[Tensor, "point 3"], cell: float
) -> Float[Tensor, "point 3"]:
    """Return the mean colour in the renderings that see the points."""
    total, count = torch.zeros_like(points), points.new_full((len(points), 1), 1e-6)
    height, width = renderings.size
    for view in range(len(renderings.depth)):
        pixels, depths = project(points, renderings.cameras[view])
        seen = sample_depths(renderings.depth[view], renderings.solid[view], pixels)
        visible = (seen > 0) & ((seen - depths).abs() < _TRUNCATION * cell)
        # A position on the far border belongs to the last pixel.
        x, y = pixels[:, 0].clamp(0, width - 1), pixels[:, 1].clamp(0, height - 1)
        read = renderings.rgb[view, :, y.long(), x.long()].T
        total += torch.where(visible[:, None], read, 0.0)
        count += visible[:, None]
    return (total / count).clamp(0, 1)


def _without_specks(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Drop small separate parts, and vertices without a face."""
    if not len(mesh.faces):
        return trimesh.Trimesh()
    labels = trimesh.graph.connected_component_labels(mesh.face_adjacency, len(mesh.faces))
    sizes = np.bincount(labels)
    mesh.update_faces(sizes[labels] >= _SMALLEST_PART * len(mesh.faces))
    mesh.remove_unreferenced_vertices()
    return mesh
