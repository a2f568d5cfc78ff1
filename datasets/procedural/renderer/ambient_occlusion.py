"""How much of the light from all around reaches a surface past others that are near."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.procedural.renderer.kernels import fused, slot_groups, where_needed
from datasets.procedural.renderer.scene_tensors import Numbers, SceneTensors, Values, Vectors
from datasets.procedural.renderer.sphere_tracing import DistanceField
from datasets.procedural.renderer.tracing import Hits

_SHAPES_IN_KERNEL = 8
"""Convex shapes that one kernel takes on an accelerator."""


def ambient_visibility(scene: SceneTensors, hits: Hits) -> Values:
    """Share of the light from all around that reaches each hit."""
    return _past_convex(scene, hits) * _past_blobs(scene, hits) * _past_corners(scene, hits)


def _past_convex(scene: SceneTensors, hits: Hits) -> Values:
    """Let spheres stand for the convex shapes."""
    scenes, shapes = scene.convex_shade.shape
    numbers = torch.arange(shapes, dtype=hits.points.dtype, device=hits.slot.device)
    spheres = torch.cat([scene.convex_sphere[..., :3], scene.convex_shade[..., None]], -1)
    table = torch.cat([spheres, numbers[None, :, None].expand(scenes, -1, -1)], -1)
    taken = torch.zeros_like(hits.t)
    for group in slot_groups(table, _SHAPES_IN_KERNEL, scene.convex_shade > 0):
        taken = _taken_by_spheres(group, hits.points, hits.normals, hits.slot, taken)
    return torch.exp(-1.1 * taken)


@fused
def _taken_by_spheres(
    spheres: Float[Tensor, "scene 1 few value"],
    points: Vectors,
    normals: Vectors,
    slot: Numbers,
    taken: Values,
) -> Values:
    """Add the light that a few spheres take away; rows are centre, radius, slot."""
    offset = [spheres[..., axis] - points[..., None, axis] for axis in range(3)]
    squared = offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2 + 1e-6
    along = sum(value * normals[..., None, axis] for axis, value in enumerate(offset))
    other = spheres[..., 4] != slot[..., None]
    near = (spheres[..., 3] ** 2 / squared).clamp_max(0.6)
    return taken + ((along * squared.rsqrt()).clamp_min(0) * near * other).sum(-1)


def _past_blobs(scene: SceneTensors, hits: Hits) -> Values:
    """Measure how soon blobs come near along the normal."""
    low, high = scene.blob_box[:, None].unbind(-2)
    near = ((hits.points > low - 0.2) & (hits.points < high + 0.2)).all(-1)
    share, points = partial(_past_blobs_nearby, scene), (hits.points, hits.normals)
    return where_needed(near, share, points, torch.ones_like(hits.t))


def _past_blobs_nearby(scene: SceneTensors, points: Vectors, normals: Vectors) -> Values:
    distance, taken = DistanceField(scene, points), torch.zeros_like(points[..., 0])
    for reach, weight in ((0.05, 3.0), (0.16, 1.6)):
        taken = taken + weight * (reach - distance(points + reach * normals)).clamp_min(0)
    return (1 - taken).clamp(0.25, 1)


def _past_corners(scene: SceneTensors, hits: Hits) -> Values:
    """Darken towards the walls, floor and ceiling that meet at a corner."""
    low, high = scene.shell_box[:, None].unbind(-2)
    solid = scene.slot_material[:, None, -6:] >= 0
    gaps = torch.cat([hits.points - low, high - hits.points], -1).clamp_min(0)
    lean = torch.cat([1 - hits.normals, 1 + hits.normals], -1).clamp(0, 1)
    taken = 0.45 * torch.exp(-gaps / 0.25) * lean * solid
    return (1 - taken).prod(-1)
