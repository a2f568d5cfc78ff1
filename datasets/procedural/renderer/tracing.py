"""Nearest surface along each ray, and visibility of lamps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datasets.procedural.renderer import geometry, kernels
from datasets.procedural.renderer.geometry import FAR, Numbers, SceneTensors, Values, Vectors
from datasets.procedural.renderer.kernels import fused, slot_groups, where_needed
from datasets.procedural.renderer.sphere_tracing import blob_normal, nearest_blob, sphere_trace
from utils.cameras import Rays

STEPS, SHADOW_STEPS = 40, 18
"""Sphere-tracing steps of camera rays and of shadow rays."""
_SLOTS_IN_KERNEL = 3
"""Slots per kernel call on an accelerator."""
_RAYS_PER_CONE = 4096
"""Neighbouring rays that share a bounding cone on the CPU."""

Table = Float[Tensor, "scene _slot _value"]
Flags = Bool[Tensor, "scene _slot"]


class Hits(NamedTuple):
    """First hits of rays; the unit normals point towards the viewer."""

    t: Values
    slot: Numbers
    points: Vectors
    normals: Vectors


def trace(scene: SceneTensors, rays: Rays) -> Hits:
    """Find the nearest surface and its normal. All rays of a scene share their origin."""
    _, first_blob, first_face = scene.slot_starts
    t, face = geometry.hit_shell(scene.shell_box, rays)
    slot = face + first_face
    nearest, index = nearest_closed_form(scene, rays, rays.origins[:, 0], 0.0)
    t, slot = torch.minimum(nearest, t), torch.where(nearest < t, index, slot)
    traced = sphere_trace(scene, rays, STEPS)
    closer, t = traced < t, torch.minimum(traced, t)
    points = rays.origins + t[..., None] * rays.directions
    blob = where_needed(closer, partial(nearest_blob, scene), (points,), torch.zeros_like(t))
    slot = torch.where(closer, blob.long() + first_blob, slot)
    normals = _normals(scene, points, slot)
    towards_viewer = geometry.dot(normals, rays.directions) <= 0
    return Hits(t, slot, points, torch.where(towards_viewer[..., None], normals, -normals))


def _normals(scene: SceneTensors, points: Vectors, slot: Numbers) -> Vectors:
    first_card, first_blob, first_face = scene.slot_starts
    normals = []
    for gradient, affine, shape, index in (
        (_convex_gradient, scene.convex_affine, scene.convex_shape, slot),
        (_card_gradient, scene.card_affine, scene.card_shape, slot - first_card),
    ):
        index = index.clamp(0, affine.shape[1] - 1)
        rows = geometry.gather_rows(affine.flatten(2), index).unflatten(-1, (3, 4))
        local = geometry.dot(rows[..., :3], points[..., None, :]) + rows[..., 3]
        local_normal = gradient(geometry.gather_rows(shape, index), local)
        normals.append((local_normal[..., None] * rows[..., :3]).sum(-2))
    normal = torch.where((slot >= first_card)[..., None], normals[1], normals[0])
    on_blob = (slot >= first_blob) & (slot < first_face)
    normal = where_needed(on_blob, partial(blob_normal, scene), (points,), normal)
    face = slot - first_face
    axes = torch.arange(3, device=slot.device)
    inward = torch.where((face < 3)[..., None], 1.0, -1.0) * (face.remainder(3)[..., None] == axes)
    normal = torch.where((face >= 0)[..., None], inward, normal)
    return torch.nn.functional.normalize(normal, dim=-1)


def _convex_gradient(quadric: Float[Tensor, "scene ray 5"], local: Vectors) -> Vectors:
    """Return the normal of the quadric or of the cube's face, whichever the point lies on."""
    x, y, z = local.unbind(-1)
    ax, ay, az, b, _ = quadric.unbind(-1)
    gradient = torch.stack([ax * x, ay * y, az * z + 0.5 * b], -1)
    gap, axis = (local.abs() - 1).max(-1)
    value = geometry.quadric_value(quadric, x, y, z)
    on_quadric = value / (2 * gradient.norm(dim=-1)).clamp_min(1e-6) > gap
    flat = torch.zeros_like(local).scatter(
        -1, axis[..., None], torch.gather(local, -1, axis[..., None]).sign()
    )
    return torch.where(on_quadric[..., None], gradient, flat)


def _card_gradient(shape: Float[Tensor, "scene ray 9"], local: Vectors) -> Vectors:
    bends = -2 * shape[..., :2] * local[..., :2]
    return torch.cat([bends, torch.ones_like(bends[..., :1])], -1)


def lamp_visible(
    scene: SceneTensors, lamp: Float[Tensor, "scene 4"], origins: Vectors, to_lamp: Vectors
) -> Values:
    """Return 1 where no surface occludes a lamp (centre, radius), at which the rays end."""
    rays, slack = Rays(origins, to_lamp), float(lamp[0, 3]) + 1e-3 if kernels.on_host(lamp) else 0.0
    clear = nearest_closed_form(scene, rays, lamp[:, :3], slack)[0] >= 1
    return (clear & (sphere_trace(scene, rays, SHADOW_STEPS, needed=clear, end=1.0) >= 1)).float()


def nearest_closed_form(
    scene: SceneTensors, rays: Rays, apex: Float[Tensor, "scene 3"], slack: float
) -> tuple[Values, Numbers]:
    """Find the nearest convex shape or card: ray parameter (``FAR`` for a miss) and slot.

    All rays start or end within ``slack`` of the apex. On the CPU, neighbouring rays are tested
    only against the surfaces in their bounding cone.
    """
    convex = _numbered(scene.convex_affine, scene.convex_shape, 0)
    cards = _numbered(scene.card_affine, scene.card_shape, scene.slot_starts[0])
    if not kernels.on_host(rays.origins):
        used = (scene.convex_sphere[..., 3] > 0, scene.card_sphere[..., 3] > 0)
        return _running_nearest((convex, cards), used, rays)
    hits = []
    parts = (values.split(_RAYS_PER_CONE, 1) for values in (rays.origins, rays.directions))
    for o, d in zip(*parts, strict=True):
        in_cone = _slots_in_cone(scene, apex[0], (o if slack else o + d)[0], slack)
        hits.append(_running_nearest((convex, cards), in_cone, Rays(o, d)))
    return torch.cat([t for t, _ in hits], 1), torch.cat([slot for _, slot in hits], 1)


def _numbered(affine: Tensor, shape: Tensor, first: int) -> Table:
    """Concatenate number, affine map and shape of each slot in a row."""
    numbers = torch.arange(first, first + shape.shape[1], dtype=shape.dtype, device=shape.device)
    return torch.cat([numbers.expand(len(shape), -1)[..., None], affine.flatten(2), shape], -1)


def _slots_in_cone(
    scene: SceneTensors, apex: Float[Tensor, 3], points: Float[Tensor, "ray 3"], slack: float
) -> tuple[Flags, Flags]:
    """Find the convex shapes and cards that intersect the cone from an apex around all points."""
    unit = torch.nn.functional.normalize(points - apex, dim=-1)
    axis = torch.nn.functional.normalize(unit.mean(0), dim=-1)
    half_angle = geometry.dot(unit, axis).min().clamp(-1, 1).acos()
    spheres = torch.cat([scene.convex_sphere[0], scene.card_sphere[0]])
    offset = spheres[:, :3] - apex
    gap = offset.norm(dim=-1).clamp_min(1e-6)
    size = spheres[:, 3] + slack
    angle = (geometry.dot(offset, axis) / gap).clamp(-1, 1).acos()
    reach = torch.where(gap > size, (size / gap).clamp(max=1).asin(), 4.0)
    in_cone = (angle < half_angle + reach + 1e-3) & (spheres[:, 3] > 0)
    convex = scene.convex_sphere.shape[1]
    return in_cone[None, :convex], in_cone[None, convex:]


def _running_nearest(
    tables: tuple[Table, Table], used: tuple[Flags, Flags], rays: Rays
) -> tuple[Values, Numbers]:
    t = torch.full_like(rays.directions[..., 0], FAR)
    slot = torch.zeros_like(t)
    for closer, table, flags in zip((_closer_convex, _closer_card), tables, used, strict=True):
        for group in slot_groups(table, _SLOTS_IN_KERNEL, flags):
            if group.shape[2]:
                t, slot = closer(group, rays.origins, rays.directions, t, slot)
    return t, slot.long()


Group = Float[Tensor, "scene 1 slot value"]


@fused
def _closer_convex(slots: Group, *rays: Tensor) -> tuple[Values, Values]:
    return _closer(geometry.hit_convex, slots[:, 0, :, :18], *rays)


@fused
def _closer_card(slots: Group, *rays: Tensor) -> tuple[Values, Values]:
    return _closer(geometry.hit_cards, slots[:, 0, :, :22], *rays)


def _closer(
    hit: Callable[..., Tensor],
    slots: Table,
    origins: Vectors,
    directions: Vectors,
    t: Values,
    slot: Values,
) -> tuple[Values, Values]:
    """Update the nearest hits with those of a group of slots."""
    affine, shape = slots[..., 1:13].unflatten(-1, (3, 4)), slots[..., 13:]
    nearest, index = hit(affine, shape, origins, directions).min(-1)
    number = torch.gather(slots[..., 0], 1, index)
    return torch.minimum(nearest, t), torch.where(nearest < t, number, slot)
