"""The nearest surface along each ray, and what stands between a point and a lamp."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from datasets.procedural.intersect import FAR, dot, enter_box, hit_shell, one_by_one
from datasets.procedural.marching import march, soft_visibility, surface_normal
from datasets.procedural.nearest import nearest_closed_form
from datasets.procedural.tables import SceneTables


@dataclass(frozen=True)
class Hits:
    """Where rays ended."""

    t: Float[Tensor, "scene ray"]
    slot: Int[Tensor, "scene ray"]
    points: Float[Tensor, "scene ray 3"]
    normals: Float[Tensor, "scene ray 3"]
    """Unit length, towards the viewer."""


def pick(
    table: Float[Tensor, "scene slot value"], slot: Int[Tensor, "scene ray"]
) -> Float[Tensor, "scene ray value"]:
    """Look up each ray's row of a table."""
    return torch.gather(table, 1, slot[..., None].expand(-1, -1, table.shape[-1]))


def trace(
    scene: SceneTables,
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
    march_steps: int,
) -> Hits:
    """Find the nearest surface, its normal included. The rays of a scene share their origin."""
    t, slot = nearest_surface(scene, origins, directions, march_steps)
    points = origins + t[..., None] * directions
    normals = _normals(scene, points, slot)
    facing = dot(normals, directions)
    normals = torch.where((facing > 0)[..., None], -normals, normals)
    return Hits(t, slot, points, normals)


def nearest_surface(
    scene: SceneTables,
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
    march_steps: int,
) -> tuple[Float[Tensor, "scene ray"], Int[Tensor, "scene ray"]]:
    """Return ray parameter and slot of the nearest surface; rays of a scene share their origin."""
    convex, cards = scene.convex_affine.shape[1], scene.card_affine.shape[1]
    blobs = scene.blob_affine.shape[1]
    t, face = hit_shell(scene.shell_box, origins, directions)
    slot = face + convex + cards + blobs + 1
    nearest, index = nearest_closed_form(scene, origins, directions, origins[:, 0], 0.0)
    closer = nearest < t
    t, slot = torch.where(closer, nearest, t), torch.where(closer, index, slot)
    march_t, part = _march_entering(scene, origins, directions, march_steps)
    closer = march_t < t
    return torch.where(closer, march_t, t), torch.where(closer, part + convex + cards, slot)


def _march_entering(
    scene: SceneTables,
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
    steps: int,
) -> tuple[Float[Tensor, "scene ray"], Int[Tensor, "scene ray"]]:
    """March rays; for a single scene on the CPU only those that enter the marched box."""
    if not one_by_one(origins):
        return march(scene, origins, directions, steps)
    entry, leave = enter_box(scene.marched_box, origins, directions)
    entering = (entry < leave)[0].nonzero()[:, 0]
    t = torch.full_like(entry, FAR)
    part = torch.zeros(entry.shape, dtype=torch.long)
    if len(entering):
        found = march(scene, origins[:, entering], directions[:, entering], steps)
        t[:, entering], part[:, entering] = found
    return t, part


def _normals(
    scene: SceneTables,
    points: Float[Tensor, "scene ray 3"],
    slot: Int[Tensor, "scene ray"],
) -> Float[Tensor, "scene ray 3"]:
    convex, cards = scene.convex_affine.shape[1], scene.card_affine.shape[1]
    blobs = scene.blob_affine.shape[1]
    body = slot.clamp_max(convex - 1)
    normal = _convex_normal(
        pick(scene.convex_affine.flatten(2), body), pick(scene.convex_quadric, body), points
    )
    sheet = (slot - convex).clamp(0, cards - 1)
    card_normal = _card_normal(
        pick(scene.card_affine.flatten(2), sheet), pick(scene.card_shape, sheet), points
    )
    normal = torch.where((slot >= convex)[..., None], card_normal, normal)
    on_marched = (slot >= convex + cards) & (slot <= convex + cards + blobs)
    normal = torch.where(on_marched[..., None], _marched_normal(scene, points, on_marched), normal)
    face = slot - (convex + cards + blobs + 1)
    axes = torch.arange(3, device=slot.device)
    inward = torch.where((face < 3)[..., None], 1.0, -1.0) * (face.remainder(3)[..., None] == axes)
    normal = torch.where((face >= 0)[..., None], inward, normal)
    return torch.nn.functional.normalize(normal, dim=-1)


def _marched_normal(
    scene: SceneTables, points: Float[Tensor, "scene ray 3"], wanted: Bool[Tensor, "scene ray"]
) -> Float[Tensor, "scene ray 3"]:
    if not one_by_one(points):
        return surface_normal(scene, points)
    index = wanted[0].nonzero()[:, 0]
    normal = torch.zeros_like(points)
    if len(index):
        normal[:, index] = surface_normal(scene, points[:, index])
    return normal


def _convex_normal(
    affine: Float[Tensor, "scene ray 12"],
    quadric: Float[Tensor, "scene ray 5"],
    points: Float[Tensor, "scene ray 3"],
) -> Float[Tensor, "scene ray 3"]:
    """Normal of whichever bound of the body the point lies on."""
    rows = affine.unflatten(-1, (3, 4))
    local = dot(rows[..., :3], points[..., None, :]) + rows[..., 3]
    x, y, z = local.unbind(-1)
    ax, ay, az, b, c = quadric.unbind(-1)
    value = ax * x * x + ay * y * y + (az * z + b) * z + c
    gradient = torch.stack([ax * x, ay * y, az * z + 0.5 * b], -1)
    gap, axis = (local.abs() - 1).max(-1)
    on_quadric = value / (2 * gradient.norm(dim=-1)).clamp_min(1e-6) > gap
    flat = torch.zeros_like(local).scatter(
        -1, axis[..., None], torch.gather(local, -1, axis[..., None]).sign()
    )
    inner = torch.where(on_quadric[..., None], gradient, flat)
    return (inner[..., None] * rows[..., :3]).sum(-2)


def _card_normal(
    affine: Float[Tensor, "scene ray 12"],
    shape: Float[Tensor, "scene ray 9"],
    points: Float[Tensor, "scene ray 3"],
) -> Float[Tensor, "scene ray 3"]:
    rows = affine.unflatten(-1, (3, 4))
    u, v, _ = (dot(rows[..., :3], points[..., None, :]) + rows[..., 3]).unbind(-1)
    inner = torch.stack([-2 * shape[..., 0] * u, -2 * shape[..., 1] * v, torch.ones_like(u)], -1)
    return (inner[..., None] * rows[..., :3]).sum(-2)


def visibility(
    scene: SceneTables,
    origins: Float[Tensor, "scene ray 3"],
    to_light: Float[Tensor, "scene ray 3"],
    lamp: Float[Tensor, "scene 4"],
    softness: Float[Tensor, "scene ray"],
    steps: int,
) -> Float[Tensor, "scene ray"]:
    """Share of a lamp (centre, radius) that is seen; ``to_light`` ends at a point of the lamp."""
    single = one_by_one(origins)
    slack = float(lamp[0, 3]) + 1e-3 if single else 0.0
    nearest, _ = nearest_closed_form(scene, origins, to_light, lamp[:, :3], slack)
    seen = (nearest >= 1).float()
    if not single:
        return seen * soft_visibility(scene, origins, to_light, softness, steps)
    entry, leave = enter_box(scene.marched_box, origins, to_light)
    index = ((entry < leave) & (entry < 1) & (seen > 0))[0].nonzero()[:, 0]
    if len(index):
        seen[:, index] *= soft_visibility(
            scene, origins[:, index], to_light[:, index], softness[:, index], steps
        )
    return seen
