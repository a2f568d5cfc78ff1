"""How much of the light from all around reaches a surface past others that are near."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from datasets.procedural import fusing
from datasets.procedural.fusing import fused, slot_groups
from datasets.procedural.intersect import one_by_one
from datasets.procedural.marching import distance
from datasets.procedural.tables import SceneTables
from datasets.procedural.tracing import Hits

_BODIES_IN_KERNEL = 8
"""Bodies that one kernel lets take light away, on an accelerator."""


def openness(scene: SceneTables, hits: Hits) -> Float[Tensor, "scene ray"]:
    """Share of the light from all around that reaches each hit."""
    near_bodies = _openness_near_bodies(scene, hits.points, hits.normals, hits.slot)
    return near_bodies * _march_openness(scene, hits) * _corner_openness(scene, hits)


def _openness_near_bodies(
    scene: SceneTables,
    points: Float[Tensor, "scene ray 3"],
    normals: Float[Tensor, "scene ray 3"],
    slot: Int[Tensor, "scene ray"],
) -> Float[Tensor, "scene ray"]:
    """Stand-in for ambient occlusion: bodies count as spheres, marched bodies by distance."""
    scenes, bodies = scene.convex_shade.shape
    numbers = torch.arange(bodies, dtype=points.dtype, device=slot.device)
    spheres = torch.cat([scene.convex_sphere[..., :3], scene.convex_shade[..., None]], -1)
    table = torch.cat([spheres, numbers[None, :, None].expand(scenes, -1, -1)], -1)
    taken = torch.zeros_like(points[..., 0])
    few = bodies if fusing.on_host(points) else _BODIES_IN_KERNEL
    for group in slot_groups(table, few):
        taken = _taken_by_bodies(group, points, normals, slot, taken)
    return torch.exp(-1.1 * taken)


@fused
def _taken_by_bodies(
    bodies: Float[Tensor, "scene 1 few value"],
    points: Float[Tensor, "scene ray 3"],
    normals: Float[Tensor, "scene ray 3"],
    slot: Int[Tensor, "scene ray"],
    taken: Float[Tensor, "scene ray"],
) -> Float[Tensor, "scene ray"]:
    """Add the light that a few bodies take away; rows are centre, radius, slot."""
    offset = [bodies[..., axis] - points[..., None, axis] for axis in range(3)]
    squared = offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2 + 1e-6
    along = sum(value * normals[..., None, axis] for axis, value in enumerate(offset))
    other = bodies[..., 4] != slot[..., None]
    near = (bodies[..., 3] ** 2 / squared).clamp_max(0.6)
    return taken + ((along * squared.rsqrt()).clamp_min(0) * near * other).sum(-1)


def _march_openness(scene: SceneTables, hits: Hits) -> Float[Tensor, "scene ray"]:
    near = _near_marched(scene, hits)
    if not one_by_one(hits.points):
        return torch.where(near, _gap_openness(scene, hits.points, hits.normals), 1.0)
    index = near[0].nonzero()[:, 0]
    share = torch.ones_like(hits.t)
    if len(index):
        share[:, index] = _gap_openness(scene, hits.points[:, index], hits.normals[:, index])
    return share


def _near_marched(scene: SceneTables, hits: Hits) -> Bool[Tensor, "scene ray"]:
    low, high = scene.marched_box[:, None].unbind(-2)
    return ((hits.points > low - 0.2) & (hits.points < high + 0.2)).all(-1)


def _gap_openness(
    scene: SceneTables, points: Float[Tensor, "scene ray 3"], normals: Float[Tensor, "scene ray 3"]
) -> Float[Tensor, "scene ray"]:
    taken = torch.zeros_like(points[..., 0])
    for reach, weight in ((0.05, 3.0), (0.16, 1.6)):
        gap = distance(scene, points + reach * normals)
        taken = taken + weight * (reach - gap).clamp_min(0)
    return (1 - taken).clamp(0.25, 1)


def _corner_openness(scene: SceneTables, hits: Hits) -> Float[Tensor, "scene ray"]:
    """Darken towards the walls, floor and ceiling that meet at a corner."""
    low, high = scene.shell_box[:, None].unbind(-2)
    solid = scene.slot_material[:, None, -6:] >= 0
    gaps = torch.cat([hits.points - low, high - hits.points], -1).clamp_min(0)
    lean = torch.cat([1 - hits.normals, 1 + hits.normals], -1).clamp(0, 1)
    taken = 0.45 * torch.exp(-gaps / 0.25) * lean * solid
    return (1 - taken).prod(-1)
