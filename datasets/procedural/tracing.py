"""The nearest surface along each ray, and what stands between a point and a lamp."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from datasets.procedural.fusing import fused
from datasets.procedural.intersect import (
    FAR,
    dot,
    enter_box,
    hit_cards,
    hit_convex,
    hit_shell,
    one_by_one,
)
from datasets.procedural.marching import march, soft_visibility, surface_normal
from datasets.procedural.tables import SceneTables

_SLOTS_IN_KERNEL = 2
"""Slots that one kernel looks at on an accelerator."""
_BUNDLE = 4096
"""Rays that are culled together on the CPU."""


@dataclass(frozen=True)
class Hits:
    """Where rays ended."""

    t: Float[Tensor, "scene ray"]
    slot: Int[Tensor, "scene ray"]
    points: Float[Tensor, "scene ray 3"]
    normals: Float[Tensor, "scene ray 3"]
    """Unit length, towards the viewer."""


class _Surfaces:
    """One kind of surface: how rays meet it, and a kernel that keeps the nearest."""

    def __init__(self, hit: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
        self.hit = hit

        @fused
        def closer(
            affine: Float[Tensor, "scene few 3 4"],
            shape: Float[Tensor, "scene few value"],
            slots: Int[Tensor, " few"],
            origins: Float[Tensor, "scene ray 3"],
            directions: Float[Tensor, "scene ray 3"],
            t: Float[Tensor, "scene ray"],
            index: Int[Tensor, "scene ray"],
        ) -> tuple[Float[Tensor, "scene ray"], Int[Tensor, "scene ray"]]:
            # One slot after the other: a reduction of this size takes minutes to compile.
            for place in range(affine.shape[1]):
                one = slice(place, place + 1)
                found = hit(affine[:, one], shape[:, one], origins, directions)[..., 0]
                index = torch.where(found < t, slots[place], index)
                t = torch.minimum(found, t)
            return t, index

        self.closer = closer


_CONVEX, _CARDS = _Surfaces(hit_convex), _Surfaces(hit_cards)


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
    nearest, index = _nearest_closed_form(scene, origins, directions, origins[:, 0], 0.0)
    closer = nearest < t
    t, slot = torch.where(closer, nearest, t), torch.where(closer, index, slot)
    march_t, part = _march_entering(scene, origins, directions, march_steps)
    closer = march_t < t
    return torch.where(closer, march_t, t), torch.where(closer, part + convex + cards, slot)


def _nearest_closed_form(
    scene: SceneTables,
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
    apex: Float[Tensor, "scene 3"],
    slack: float,
) -> tuple[Float[Tensor, "scene ray"], Int[Tensor, "scene ray"]]:
    """Nearest convex body or card: ray parameter and slot.

    All rays start or end within ``slack`` of the apex. For a single scene on the CPU, neighbours
    look together at those surfaces only that reach into their common cone.
    """
    if not one_by_one(origins):
        every = (scene.convex_affine, scene.convex_quadric, scene.card_affine, scene.card_shape)
        return _nearest_among(
            every, (None, None), scene.convex_affine.shape[1], origins, directions
        )
    found = []
    for o, d in zip(origins.split(_BUNDLE, 1), directions.split(_BUNDLE, 1), strict=True):
        convex, cards = _cull(scene, apex[0], (o if slack else o + d)[0], slack)
        few = (
            scene.convex_affine[:, convex],
            scene.convex_quadric[:, convex],
            scene.card_affine[:, cards],
            scene.card_shape[:, cards],
        )
        found.append(_nearest_among(few, (convex, cards), scene.convex_affine.shape[1], o, d))
    return torch.cat([t for t, _ in found], 1), torch.cat([slot for _, slot in found], 1)


def _nearest_among(
    tables: tuple[Tensor, Tensor, Tensor, Tensor],
    numbers: tuple[Tensor | None, Tensor | None],
    first_card: int,
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
) -> tuple[Float[Tensor, "scene ray"], Int[Tensor, "scene ray"]]:
    """Nearest hit with convex bodies and cards, of which ``numbers`` tell the slots."""
    t = torch.full_like(origins[..., 0], FAR)
    slot = torch.zeros(t.shape, dtype=torch.long, device=t.device)
    for surfaces, affine, shape, ids, first in (
        (_CONVEX, tables[0], tables[1], numbers[0], 0),
        (_CARDS, tables[2], tables[3], numbers[1], first_card),
    ):
        if affine.shape[1] == 0:
            continue
        nearest, index = _nearest_of(surfaces, affine, shape, origins, directions)
        index = index if ids is None else ids[index]
        closer = nearest < t
        t, slot = torch.where(closer, nearest, t), torch.where(closer, index + first, slot)
    return t, slot


def _nearest_of(
    surfaces: _Surfaces,
    affine: Float[Tensor, "scene slot 3 4"],
    shape: Float[Tensor, "scene slot value"],
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
) -> tuple[Float[Tensor, "scene ray"], Int[Tensor, "scene ray"]]:
    """Nearest of surfaces of one kind: on an accelerator a few slots to a kernel."""
    if origins.device.type == "cpu":
        nearest, index = surfaces.hit(affine, shape, origins, directions).min(-1)
        return nearest, index
    t = torch.full_like(origins[..., 0], FAR)
    index = torch.zeros(t.shape, dtype=torch.long, device=t.device)
    slots = torch.arange(affine.shape[1], device=t.device)
    for first in range(0, affine.shape[1], _SLOTS_IN_KERNEL):
        few = slice(first, first + _SLOTS_IN_KERNEL)
        tables = (affine[:, few], shape[:, few], slots[few])
        t, index = surfaces.closer(*tables, origins, directions, t, index)
    return t, index


def _cull(
    scene: SceneTables, apex: Float[Tensor, 3], points: Float[Tensor, "ray 3"], slack: float
) -> tuple[Int[Tensor, " body"], Int[Tensor, " sheet"]]:
    """Find the convex bodies and cards that reach into the cone from an apex around all points."""
    unit = torch.nn.functional.normalize(points - apex, dim=-1)
    axis = torch.nn.functional.normalize(unit.mean(0), dim=-1)
    half_angle = dot(unit, axis).min().clamp(-1, 1).acos()
    spheres = torch.cat([scene.convex_sphere[0], scene.card_sphere[0]])
    offset = spheres[:, :3] - apex
    gap = offset.norm(dim=-1)
    size = spheres[:, 3] + slack
    angle = (dot(offset, axis) / gap.clamp_min(1e-6)).clamp(-1, 1).acos()
    reach = torch.where(gap > size, (size / gap.clamp_min(1e-6)).clamp(max=1).asin(), 4.0)
    touched = (angle < half_angle + reach + 1e-3) & (spheres[:, 3] > 0)
    convex = scene.convex_sphere.shape[1]
    return touched[:convex].nonzero()[:, 0], touched[convex:].nonzero()[:, 0]


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
    nearest, _ = _nearest_closed_form(scene, origins, to_light, lamp[:, :3], slack)
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
