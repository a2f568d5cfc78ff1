"""The nearest surface along each ray, and what stands between a point and a lamp."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.procedural.renderer import kernels
from datasets.procedural.renderer.intersection import (
    FAR,
    Rays,
    dot,
    hit_cards,
    hit_convex,
    hit_shell,
    quadric_value,
)
from datasets.procedural.renderer.kernels import fused, slot_groups, where_needed
from datasets.procedural.renderer.scene_tensors import Numbers, SceneTensors, Values, Vectors, pick
from datasets.procedural.renderer.sphere_tracing import (
    sphere_trace,
    surface_normal,
    traced_slot,
)

_SLOTS_IN_KERNEL = 3
"""Slots that one kernel tests on an accelerator."""
_BUNDLE = 4096
"""Rays that are culled together on the CPU."""


@dataclass(frozen=True)
class Hits:
    """Where rays ended."""

    t: Values
    slot: Numbers
    points: Vectors
    normals: Vectors
    """Unit length, towards the viewer."""


def trace(scene: SceneTensors, rays: Rays, steps: int) -> Hits:
    """Find the nearest surface, its normal included. The rays of a scene share their origin."""
    t, slot = nearest_surface(scene, rays, steps)
    points = rays.at(t)
    normals = _normals(scene, points, slot)
    towards_viewer = dot(normals, rays.directions) <= 0
    return Hits(t, slot, points, torch.where(towards_viewer[..., None], normals, -normals))


def nearest_surface(scene: SceneTensors, rays: Rays, steps: int) -> tuple[Values, Numbers]:
    """Return ray parameter and slot of the nearest surface; rays of a scene share their origin."""
    _, first_blob, _, first_face = scene.slot_starts
    t, face = hit_shell(scene.shell_box, rays)
    slot = face + first_face
    nearest, index = nearest_closed_form(scene, rays, rays.origins[:, 0], 0.0)
    t, slot = torch.minimum(nearest, t), torch.where(nearest < t, index, slot)
    traced = sphere_trace(scene, rays, steps)
    closer, t = traced < t, torch.minimum(traced, t)
    nearest_blob = where_needed(
        closer, lambda points: traced_slot(scene, points), (rays.at(t),), torch.zeros_like(t)
    )
    return t, torch.where(closer, nearest_blob.long() + first_blob, slot)


def _normals(scene: SceneTensors, points: Vectors, slot: Numbers) -> Vectors:
    first_card, first_blob, relief, first_face = scene.slot_starts
    convex = slot.clamp_max(first_card - 1)
    normal = _convex_normal(
        pick(scene.convex_affine.flatten(2), convex), pick(scene.convex_quadric, convex), points
    )
    card = (slot - first_card).clamp(0, first_blob - first_card - 1)
    card_normal = _card_normal(
        pick(scene.card_affine.flatten(2), card), pick(scene.card_shape, card), points
    )
    normal = torch.where((slot >= first_card)[..., None], card_normal, normal)
    on_traced = (slot >= first_blob) & (slot <= relief)
    normal = where_needed(on_traced, lambda some: surface_normal(scene, some), (points,), normal)
    face = slot - first_face
    axes = torch.arange(3, device=slot.device)
    inward = torch.where((face < 3)[..., None], 1.0, -1.0) * (face.remainder(3)[..., None] == axes)
    normal = torch.where((face >= 0)[..., None], inward, normal)
    return torch.nn.functional.normalize(normal, dim=-1)


Affine = Float[Tensor, "scene ray 12"]


def _convex_normal(
    affine: Affine, quadric: Float[Tensor, "scene ray 5"], points: Vectors
) -> Vectors:
    """Normal of whichever bound of the shape the point lies on."""
    rows = affine.unflatten(-1, (3, 4))
    local = dot(rows[..., :3], points[..., None, :]) + rows[..., 3]
    x, y, z = local.unbind(-1)
    ax, ay, az, b, _ = quadric.unbind(-1)
    gradient = torch.stack([ax * x, ay * y, az * z + 0.5 * b], -1)
    gap, axis = (local.abs() - 1).max(-1)
    value = quadric_value(quadric, x, y, z)
    on_quadric = value / (2 * gradient.norm(dim=-1)).clamp_min(1e-6) > gap
    flat = torch.zeros_like(local).scatter(
        -1, axis[..., None], torch.gather(local, -1, axis[..., None]).sign()
    )
    inner = torch.where(on_quadric[..., None], gradient, flat)
    return (inner[..., None] * rows[..., :3]).sum(-2)


def _card_normal(affine: Affine, shape: Float[Tensor, "scene ray 9"], points: Vectors) -> Vectors:
    rows = affine.unflatten(-1, (3, 4))
    u, v, _ = (dot(rows[..., :3], points[..., None, :]) + rows[..., 3]).unbind(-1)
    inner = torch.stack([-2 * shape[..., 0] * u, -2 * shape[..., 1] * v, torch.ones_like(u)], -1)
    return (inner[..., None] * rows[..., :3]).sum(-2)


def lamp_visible(
    scene: SceneTensors, to_lamp: Rays, lamp: Float[Tensor, "scene 4"], steps: int
) -> Values:
    """Return 1 where nothing stands before a lamp (centre, radius), whose points end the rays."""
    slack = float(lamp[0, 3]) + 1e-3 if kernels.one_by_one(to_lamp.origins) else 0.0
    seen = nearest_closed_form(scene, to_lamp, lamp[:, :3], slack)[0] >= 1
    traced = sphere_trace(scene, to_lamp, steps, needed=seen, end=1.0)
    return (seen & (traced >= 1)).float()


def nearest_closed_form(
    scene: SceneTensors, rays: Rays, apex: Float[Tensor, "scene 3"], slack: float
) -> tuple[Values, Numbers]:
    """Nearest convex shape or card: ray parameter (``FAR`` for a miss) and slot.

    All rays start or end within ``slack`` of the apex. For a single scene on the CPU, neighbours
    are tested together, against those surfaces only that reach into their common cone.
    """
    origins, directions = rays.origins, rays.directions
    if not kernels.on_host(origins):
        return _running_nearest(scene, origins.contiguous(), directions.contiguous())
    convex, cards = scene.convex_affine.shape[1], scene.card_affine.shape[1]
    if not kernels.one_by_one(origins):
        return _nearest_among(scene, (torch.arange(convex), torch.arange(cards)), rays)
    found = []
    for o, d in zip(origins.split(_BUNDLE, 1), directions.split(_BUNDLE, 1), strict=True):
        few = _cull(scene, apex[0], (o if slack else o + d)[0], slack)
        found.append(_nearest_among(scene, few, Rays(o, d)))
    return torch.cat([t for t, _ in found], 1), torch.cat([slot for _, slot in found], 1)


def _nearest_among(
    scene: SceneTensors, few: tuple[Int[Tensor, " convex"], Int[Tensor, " card"]], rays: Rays
) -> tuple[Values, Numbers]:
    t = torch.full_like(rays.origins[..., 0], FAR)
    slot = torch.zeros(t.shape, dtype=torch.long, device=t.device)
    for hit, affine, shape, kept, first in (
        (hit_convex, scene.convex_affine, scene.convex_quadric, few[0], 0),
        (hit_cards, scene.card_affine, scene.card_shape, few[1], scene.slot_starts[0]),
    ):
        if len(kept) == 0:
            continue
        found = hit(affine[:, kept], shape[:, kept], rays.origins, rays.directions)
        nearest, index = found.min(-1)
        closer = nearest < t
        t, slot = torch.where(closer, nearest, t), torch.where(closer, kept[index] + first, slot)
    return t, slot


def _cull(
    scene: SceneTensors, apex: Float[Tensor, 3], points: Float[Tensor, "ray 3"], slack: float
) -> tuple[Int[Tensor, " convex"], Int[Tensor, " card"]]:
    """Find the convex shapes and cards that reach into the cone from an apex around all points."""
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


def _running_nearest(
    scene: SceneTensors, origins: Vectors, directions: Vectors
) -> tuple[Values, Numbers]:
    """Test a few slots in each kernel, which keeps the nearest hit.

    A kernel that reduces over all slots takes minutes to compile.
    """
    t = torch.full_like(directions[..., 0], FAR)
    slot, first = torch.zeros_like(t), 0
    for closer, affine, shape in (
        (_closer_convex, scene.convex_affine, scene.convex_quadric),
        (_closer_card, scene.card_affine, scene.card_shape),
    ):
        scenes, slots = affine.shape[:2]
        numbers = torch.arange(first, first + slots, dtype=t.dtype, device=t.device)
        numbered = [numbers[None, :, None].expand(scenes, -1, -1), affine.flatten(2), shape]
        for group in slot_groups(torch.cat(numbered, -1), _SLOTS_IN_KERNEL):
            t, slot = closer(group, origins, directions, t, slot)
        first += slots
    return t, slot.long()


Group = Float[Tensor, "scene 1 few value"]
Closer = Callable[[Group, Vectors, Vectors, Values, Values], tuple[Values, Values]]


def _closer(hit: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], values: int) -> Closer:
    """Return the kernel for a kind of surface whose shape has so many values."""

    @fused
    def closer(
        slots: Group, origins: Vectors, directions: Vectors, t: Values, slot: Values
    ) -> tuple[Values, Values]:
        """Test one slot after the other; rows are the slot's number, its frame, its shape."""
        for row in slots.unbind(2):
            affine, shape = row[..., 1:13].unflatten(-1, (3, 4)), row[..., 13 : 13 + values]
            found = hit(affine, shape, origins, directions)[..., 0]
            slot = torch.where(found < t, row[..., 0], slot)
            t = torch.minimum(found, t)
        return t, slot

    return closer


_closer_convex, _closer_card = _closer(hit_convex, 5), _closer(hit_cards, 9)
