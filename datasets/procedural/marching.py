"""Blended bodies and height fields: signed distances and sphere tracing (Hart, 1996)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.procedural.fusing import fused
from datasets.procedural.intersect import FAR, enter_box, local_components, one_by_one
from datasets.procedural.tables import SceneTables

_PARTS_IN_KERNEL = 2
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
    scene: SceneTables, points: Float[Tensor, "scene ray 3"]
) -> Float[Tensor, "scene ray"]:
    """Return a lower bound of the distance to the height field, a sum of sine waves."""
    x, y, z = points.unbind(-1)
    height = scene.relief_level[:, :1].expand_as(z)
    for kx, ky, phase, amplitude in (wave.unbind(-1) for wave in scene.relief.unbind(1)):
        angle = kx[:, None] * x + ky[:, None] * y + phase[:, None]
        height = height + amplitude[:, None] * angle.sin()
    return (z - height) / scene.relief_level[:, 1:]


def distance(
    scene: SceneTables, points: Float[Tensor, "scene ray 3"]
) -> Float[Tensor, "scene ray"]:
    """Signed distance to the union of the melted parts and the height field.

    Parts melt by an exponential smooth minimum: the same for any order of the parts.
    """
    if points.device.type == "cpu":
        blend = scene.blob_blend[:, None]
        parts = part_distances(scene.blob_affine, scene.blob_shape, points)
        melted = -blend * torch.logsumexp(parts / -blend[..., None], -1)
    else:
        melted = _melted_one_by_one(scene, points)
    return torch.minimum(melted, relief_distance(scene, points))


def _melted_one_by_one(
    scene: SceneTables, points: Float[Tensor, "scene ray 3"]
) -> Float[Tensor, "scene ray"]:
    """Melt a few parts to a kernel: one kernel for all of them takes minutes to compile."""
    nearest = torch.full_like(points[..., 0], _NOTHING_NEAR)
    total = torch.zeros_like(nearest)
    for first in range(0, scene.blob_affine.shape[1], _PARTS_IN_KERNEL):
        few = slice(first, first + _PARTS_IN_KERNEL)
        tables = (scene.blob_affine[:, few], scene.blob_shape[:, few], scene.blob_blend)
        nearest, total = _melt(*tables, points, nearest, total)
    return nearest - scene.blob_blend[:, None] * total.log()


@fused
def _melt(
    affine: Float[Tensor, "scene few 3 4"],
    shape: Float[Tensor, "scene few 5"],
    blend: Float[Tensor, " scene"],
    points: Float[Tensor, "scene ray 3"],
    nearest: Float[Tensor, "scene ray"],
    total: Float[Tensor, "scene ray"],
) -> tuple[Float[Tensor, "scene ray"], Float[Tensor, "scene ray"]]:
    """Add parts to a running minimum and to the sum of exponentials relative to it."""
    for part in range(affine.shape[1]):
        one = slice(part, part + 1)
        gap = part_distances(affine[:, one], shape[:, one], points)[..., 0]
        least = torch.minimum(nearest, gap)
        kept = total * ((least - nearest) / blend[:, None]).exp()
        total = kept + ((least - gap) / blend[:, None]).exp()
        nearest = least
    return nearest, total


def march(
    scene: SceneTables,
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
    steps: int,
) -> tuple[Float[Tensor, "scene ray"], Int[Tensor, "scene ray"]]:
    """Sphere-trace rays: parameter (``FAR`` for a miss) and part (one past the last: relief)."""
    entry, leave = enter_box(scene.marched_box, origins, directions)
    t = entry
    if one_by_one(origins):
        t = _advance_active(scene, origins, directions, t, leave, steps)
    else:
        for _ in range(steps):
            t = _advance(scene, origins, directions, t, leave)
    t, gap = _polish(scene, origins, directions, t)
    arrived = (gap.abs() < _HIT * (1 + t)) & (t < leave) & (t > 1e-3) & (entry < leave)
    points = origins + t[..., None] * directions
    parts = part_distances(scene.blob_affine, scene.blob_shape, points)
    nearest, part = parts.min(-1)
    on_relief = relief_distance(scene, points) < nearest
    return torch.where(arrived, t, FAR), torch.where(on_relief, parts.shape[-1], part)


def _advance(
    scene: SceneTables,
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
    t: Float[Tensor, "scene ray"],
    leave: Float[Tensor, "scene ray"],
) -> Float[Tensor, "scene ray"]:
    """Step forward by what is surely free."""
    gap = distance(scene, origins + t[..., None] * directions)
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
            now = _advance(scene, o, d, now, end)
        t[:, active] = now
        moved = (now - before) * d.norm(dim=-1)
        active = active[((moved > 0.2 * _HIT * (1 + now)) & (now < end))[0]]
        if len(active) == 0:
            break
    return t


def _polish(
    scene: SceneTables,
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
    t: Float[Tensor, "scene ray"],
) -> tuple[Float[Tensor, "scene ray"], Float[Tensor, "scene ray"]]:
    """Replace the slow end of sphere tracing by two secant steps."""
    speed = directions.norm(dim=-1)
    step = 2e-3 / speed
    gap = distance(scene, origins + t[..., None] * directions)
    for _ in range(2):
        ahead = distance(scene, origins + (t + step)[..., None] * directions)
        slope = ((ahead - gap) / step).clamp_max(-0.05 * speed)
        advance = (gap / -slope).clamp(min=-0.02 / speed, max=0.02 / speed)
        t = t + torch.where(gap.abs() < 0.02, advance, 0.0)
        gap = distance(scene, origins + t[..., None] * directions)
    return t, gap


def surface_normal(
    scene: SceneTables, points: Float[Tensor, "scene ray 3"]
) -> Float[Tensor, "scene ray 3"]:
    """Gradient of the distance by differences along the corners of a tetrahedron."""
    step = 2e-3
    corners = ((1.0, -1.0, -1.0), (-1.0, -1.0, 1.0), (-1.0, 1.0, -1.0), (1.0, 1.0, 1.0))
    normal = torch.zeros_like(points)
    for corner in corners:
        shifted = [
            value + step * sign for value, sign in zip(points.unbind(-1), corner, strict=True)
        ]
        gap = distance(scene, torch.stack(shifted, -1))
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
    for _ in range(steps):
        inside = (t < end) & (entry < leave)
        rays = (origins, directions, t, softness)
        gap, ratio = _gap_and_ratio(scene, *rays)  # pyright: ignore[reportCallIssue]
        seen = torch.where(inside, torch.minimum(seen, ratio), seen)
        t = t + torch.maximum(gap.clamp_min(0.01) / reach, shortest)
    return seen.clamp(0, 1)


def _gap_and_ratio(
    scene: SceneTables,
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
    t: Float[Tensor, "scene ray"],
    softness: Float[Tensor, "scene ray"],
) -> tuple[Float[Tensor, "scene ray"], Float[Tensor, "scene ray"]]:
    """Distance to the nearest surface, and as a share of the lamp's cone at that point."""
    gap = distance(scene, origins + t[..., None] * directions)
    return gap, gap / (softness * t * directions.norm(dim=-1))
