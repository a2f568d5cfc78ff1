"""Blended bodies and height fields: signed distances and sphere tracing (Hart, 1996)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.procedural import fusing
from datasets.procedural.fusing import fused, slot_groups
from datasets.procedural.intersect import FAR, enter_box, local_components, one_by_one
from datasets.procedural.tables import SceneTables

_PARTS_IN_KERNEL = 5
"""Parts that one kernel looks at on an accelerator."""
_NOTHING_NEAR = 1e3
"""A distance beyond every part's."""
_HIT = 4e-4
"""Distance at which a ray has arrived, relative to the way that it came."""


def part_distances(
    affine: Float[Tensor, "scene blob 3 4"],
    shape: Float[Tensor, "scene blob 5"],
    points: Float[Tensor, "scene ray 3"],
) -> Float[Tensor, "scene ray blob"]:
    """Signed distances to rounded boxes (balls and capsules among them) and rings."""
    x, y, z = local_components(affine, points, points=True)
    half_x, half_y, half_z, radius, ring = shape[:, None].unbind(-1)
    is_ring = ring > 0
    around = (x * x + y * y).sqrt() - ring
    x, y = torch.where(is_ring, around, x), torch.where(is_ring, 0.0, y)
    x, y, z = x.abs() - half_x, y.abs() - half_y, z.abs() - half_z
    outside = (x.clamp_min(0) ** 2 + y.clamp_min(0) ** 2 + z.clamp_min(0) ** 2).sqrt()
    inside = torch.maximum(torch.maximum(x, y), z).clamp_max(0)
    return outside + inside - radius


@fused
def relief_distance(
    points: Float[Tensor, "scene ray 3"],
    relief: Float[Tensor, "scene 1 wave 4"],
    level: Float[Tensor, "scene 1 2"],
) -> Float[Tensor, "scene ray"]:
    """Return a lower bound of the distance to the height field, a sum of sine waves."""
    x, y, z = points.unbind(-1)
    height = level[..., 0].expand_as(z)
    for kx, ky, phase, amplitude in (wave.unbind(-1) for wave in relief.unbind(2)):
        height = height + amplitude * (kx * x + ky * y + phase).sin()
    return (z - height) / level[..., 1]


@dataclass(frozen=True)
class _Parts:
    """The parts as kernels on an accelerator take them: a few to each.

    One kernel for all of them takes minutes to compile.
    """

    groups: tuple[Float[Tensor, "scene 1 few value"], ...]
    nearest: Float[Tensor, "scene ray"]
    """Where the running minimum starts."""
    total: Float[Tensor, "scene ray"]


def _parts(scene: SceneTables, rays: Float[Tensor, "scene ray 3"]) -> _Parts | None:
    """Lay the parts out for distances of that many points; the CPU needs no such thing."""
    if fusing.on_host(rays):
        return None
    table = torch.cat([scene.blob_affine.flatten(2), scene.blob_shape], -1)
    # Negative half sides and radii are far from everywhere.
    groups = slot_groups(table, _PARTS_IN_KERNEL, -_NOTHING_NEAR)
    nearest = torch.full_like(rays[..., 0], _NOTHING_NEAR, memory_format=torch.contiguous_format)
    return _Parts(groups, nearest, torch.zeros_like(nearest))


def distance(
    scene: SceneTables, points: Float[Tensor, "scene ray 3"], parts: _Parts | None = None
) -> Float[Tensor, "scene ray"]:
    """Signed distance to the union of the melted parts and the height field.

    Parts melt by an exponential smooth minimum: the same for any order of the parts.
    """
    blend, relief = scene.blob_blend[:, None], (scene.relief[:, None], scene.relief_level[:, None])
    parts = parts or _parts(scene, points)
    if parts is None:
        gaps = part_distances(scene.blob_affine, scene.blob_shape, points)
        melted = -blend * torch.logsumexp(gaps / -blend[..., None], -1)
        return torch.minimum(melted, relief_distance(points, *relief))
    points = points.contiguous()
    nearest, total = parts.nearest, parts.total
    for group in parts.groups:
        nearest, total = _melt(group, blend, points, nearest, total)
    return _melted_or_relief(nearest, total, blend, points, *relief)


@fused
def _melt(
    parts: Float[Tensor, "scene 1 few value"],
    blend: Float[Tensor, "scene 1"],
    points: Float[Tensor, "scene ray 3"],
    nearest: Float[Tensor, "scene ray"],
    total: Float[Tensor, "scene ray"],
) -> tuple[Float[Tensor, "scene ray"], Float[Tensor, "scene ray"]]:
    """Add parts to a running minimum and to the sum of exponentials relative to it."""
    for row in parts.unbind(2):
        affine, shape = row[..., :12].unflatten(-1, (3, 4)), row[..., 12:17]
        gap = part_distances(affine, shape, points)[..., 0]
        least = torch.minimum(nearest, gap)
        kept = total * ((least - nearest) / blend).exp()
        total = kept + ((least - gap) / blend).exp()
        nearest = least
    return nearest, total


@fused
def _melted_or_relief(
    nearest: Float[Tensor, "scene ray"],
    total: Float[Tensor, "scene ray"],
    blend: Float[Tensor, "scene 1"],
    points: Float[Tensor, "scene ray 3"],
    relief: Float[Tensor, "scene 1 wave 4"],
    level: Float[Tensor, "scene 1 2"],
) -> Float[Tensor, "scene ray"]:
    return torch.minimum(nearest - blend * total.log(), relief_distance(points, relief, level))


def march(
    scene: SceneTables,
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
    steps: int,
) -> tuple[Float[Tensor, "scene ray"], Int[Tensor, "scene ray"]]:
    """Sphere-trace rays: parameter (``FAR`` for a miss) and part (one past the last: relief)."""
    if not fusing.on_host(origins):
        origins, directions = origins.contiguous(), directions.contiguous()
    entry, leave = enter_box(scene.marched_box, origins, directions)
    t, laid_out = entry, _parts(scene, origins)
    if one_by_one(origins):
        t = _advance_active(scene, origins, directions, t, leave, steps)
    else:
        for _ in range(steps):
            t = _advance(scene, (origins, directions), t, leave, laid_out)
    t, gap = _polish(scene, (origins, directions), t, laid_out)
    arrived = (gap.abs() < _HIT * (1 + t)) & (t < leave) & (t > 1e-3) & (entry < leave)
    points = origins + t[..., None] * directions
    parts = part_distances(scene.blob_affine, scene.blob_shape, points)
    nearest, part = parts.min(-1)
    on_relief = (
        relief_distance(points, scene.relief[:, None], scene.relief_level[:, None]) < nearest
    )
    return torch.where(arrived, t, FAR), torch.where(on_relief, parts.shape[-1], part)


@fused
def _point_at(
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
    t: Float[Tensor, "scene ray"],
) -> Float[Tensor, "scene ray 3"]:
    return origins + t[..., None] * directions


def _advance(
    scene: SceneTables,
    rays: tuple[Float[Tensor, "scene ray 3"], Float[Tensor, "scene ray 3"]],
    t: Float[Tensor, "scene ray"],
    leave: Float[Tensor, "scene ray"],
    parts: _Parts | None,
) -> Float[Tensor, "scene ray"]:
    """Step forward by what is surely free."""
    return _step(t, distance(scene, _point_at(*rays, t), parts), rays[1], leave)


@fused
def _step(
    t: Float[Tensor, "scene ray"],
    gap: Float[Tensor, "scene ray"],
    directions: Float[Tensor, "scene ray 3"],
    leave: Float[Tensor, "scene ray"],
) -> Float[Tensor, "scene ray"]:
    return torch.minimum(t + gap / directions.norm(dim=-1), leave + 1e-3)


def _advance_active(
    scene: SceneTables,
    origins: Float[Tensor, "1 ray 3"],
    directions: Float[Tensor, "1 ray 3"],
    t: Float[Tensor, "1 ray"],
    leave: Float[Tensor, "1 ray"],
    steps: int,
) -> Float[Tensor, "1 ray"]:
    """Advance only the rays that still have a way to go; looks every three steps which they are."""
    active = (t < leave)[0].nonzero()[:, 0]
    t = t.clone()
    for _ in range(0, steps, 3):
        o, d, end = origins[:, active], directions[:, active], leave[:, active]
        now = before = t[:, active]
        for _ in range(3):
            before = now
            now = _advance(scene, (o, d), now, end, None)
        t[:, active] = now
        moved = (now - before) * d.norm(dim=-1)
        active = active[((moved > 0.2 * _HIT * (1 + now)) & (now < end))[0]]
        if len(active) == 0:
            break
    return t


def _polish(
    scene: SceneTables,
    rays: tuple[Float[Tensor, "scene ray 3"], Float[Tensor, "scene ray 3"]],
    t: Float[Tensor, "scene ray"],
    parts: _Parts | None,
) -> tuple[Float[Tensor, "scene ray"], Float[Tensor, "scene ray"]]:
    """Replace the slow end of sphere tracing by two secant steps."""
    speed = rays[1].norm(dim=-1)
    step = 2e-3 / speed
    gap = distance(scene, _point_at(*rays, t), parts)
    for _ in range(2):
        ahead = distance(scene, _point_at(*rays, t + step), parts)
        slope = ((ahead - gap) / step).clamp_max(-0.05 * speed)
        advance = (gap / -slope).clamp(min=-0.02 / speed, max=0.02 / speed)
        t = t + torch.where(gap.abs() < 0.02, advance, 0.0)
        gap = distance(scene, _point_at(*rays, t), parts)
    return t, gap


def surface_normal(
    scene: SceneTables, points: Float[Tensor, "scene ray 3"]
) -> Float[Tensor, "scene ray 3"]:
    """Gradient of the distance by differences along the corners of a tetrahedron."""
    step = 2e-3
    corners = ((1.0, -1.0, -1.0), (-1.0, -1.0, 1.0), (-1.0, 1.0, -1.0), (1.0, 1.0, 1.0))
    normal, parts = torch.zeros_like(points), _parts(scene, points)
    for corner in corners:
        shifted = [
            value + step * sign for value, sign in zip(points.unbind(-1), corner, strict=True)
        ]
        gap = distance(scene, torch.stack(shifted, -1), parts)
        normal = normal + torch.stack([sign * gap for sign in corner], -1)
    return torch.nn.functional.normalize(normal, dim=-1)


def soft_visibility(
    scene: SceneTables,
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
    softness: Float[Tensor, "scene ray"],
    steps: int,
) -> Float[Tensor, "scene ray"]:
    """Share of a lamp that is seen past the marched bodies; directions end at the lamp.

    The narrowest gap relative to the lamp's apparent size, as real-time renderers have it.
    """
    reach = directions.norm(dim=-1)
    entry, leave = enter_box(scene.marched_box, origins, directions)
    end = leave.clamp_max(1.0)
    t, seen = entry.clamp_min(0) + 0.01 / reach, torch.ones_like(entry)
    # Steps of at least a fraction of the way through the box: the last one leaves it.
    shortest = ((end - t) / steps).clamp_min(0) * 0.6
    end = torch.where(entry < leave, end, 0.0)
    if not fusing.on_host(origins):
        origins, directions = origins.contiguous(), directions.contiguous()
    parts = _parts(scene, origins)
    for _ in range(steps):
        gap = distance(scene, _point_at(origins, directions, t), parts)
        t, seen = _pass(t, seen, gap, reach, softness, end, shortest)
    return seen.clamp(0, 1)


@fused
def _pass(
    t: Float[Tensor, "scene ray"],
    seen: Float[Tensor, "scene ray"],
    gap: Float[Tensor, "scene ray"],
    reach: Float[Tensor, "scene ray"],
    softness: Float[Tensor, "scene ray"],
    end: Float[Tensor, "scene ray"],
    shortest: Float[Tensor, "scene ray"],
) -> tuple[Float[Tensor, "scene ray"], Float[Tensor, "scene ray"]]:
    """Step towards the lamp; the gap counts as a share of the lamp's cone at that point."""
    ratio = gap / (softness * t * reach)
    seen = torch.where(t < end, torch.minimum(seen, ratio), seen)
    return t + torch.maximum(gap.clamp_min(0.01) / reach, shortest), seen
