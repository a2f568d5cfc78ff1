"""Blended blobs and height fields: signed distances and sphere tracing (Hart, 1996)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.procedural.renderer import kernels
from datasets.procedural.renderer.intersection import FAR, Rays, enter_box, to_local
from datasets.procedural.renderer.kernels import fused, slot_groups, where_needed
from datasets.procedural.renderer.scene_tensors import Flags, SceneTensors, Values, Vectors

_BLOBS_IN_KERNEL = 5
"""Blobs that one kernel takes on an accelerator: one for all of them takes minutes to compile."""
_NOTHING_NEAR = 1e3
"""A distance beyond every blob's."""
_HIT = 4e-4
"""Distance at which a ray has arrived, relative to the way that it came."""

Waves = Float[Tensor, "scene 1 wave 4"]
Level = Float[Tensor, "scene 1 2"]
PerScene = Float[Tensor, "scene 1"]


def blob_distances(
    affine: Float[Tensor, "scene blob 3 4"], shape: Float[Tensor, "scene blob 5"], points: Vectors
) -> Float[Tensor, "scene ray blob"]:
    """Signed distances to rounded boxes (balls and capsules among them) and rings."""
    x, y, z = to_local(affine, points, points=True)
    half_x, half_y, half_z, radius, ring = shape[:, None].unbind(-1)
    is_ring = ring > 0
    around = (x * x + y * y).sqrt() - ring
    x, y = torch.where(is_ring, around, x), torch.where(is_ring, 0.0, y)
    x, y, z = x.abs() - half_x, y.abs() - half_y, z.abs() - half_z
    outside = (x.clamp_min(0) ** 2 + y.clamp_min(0) ** 2 + z.clamp_min(0) ** 2).sqrt()
    inside = torch.maximum(torch.maximum(x, y), z).clamp_max(0)
    return outside + inside - radius


@fused
def relief_distance(points: Vectors, relief: Waves, level: Level) -> Values:
    """Return a lower bound of the distance to the height field, a sum of sine waves."""
    x, y, z = points.unbind(-1)
    height = level[..., 0].expand_as(z)
    for kx, ky, phase, amplitude in (wave.unbind(-1) for wave in relief.unbind(2)):
        height = height + amplitude * (kx * x + ky * y + phase).sin()
    return (z - height) / level[..., 1]


class DistanceField:
    """Signed distance to the union of a scene's blended blobs and its height field.

    Blobs blend by an exponential smooth minimum: the same for any order of the blobs.
    """

    def __init__(self, scene: SceneTensors, rays: Vectors) -> None:
        """Lay the blobs out for points that are shaped like ``rays``."""
        self._blend = scene.blob_blend[:, None]
        self._relief = (scene.relief[:, None], scene.relief_level[:, None])
        table = torch.cat([scene.blob_affine.flatten(2), scene.blob_shape], -1)
        # Negative half sides and radii are far from everywhere.
        self._groups = slot_groups(table, _BLOBS_IN_KERNEL, -_NOTHING_NEAR)
        self._nearest = torch.full(rays.shape[:2], _NOTHING_NEAR, device=rays.device)
        self._total = torch.zeros_like(self._nearest)

    def __call__(self, points: Vectors) -> Values:
        """Return the signed distances of points."""
        nearest, total = self._nearest[:, : points.shape[1]], self._total[:, : points.shape[1]]
        for group in self._groups:
            nearest, total = _blend_in(group, self._blend, points, nearest, total)
        return _blended_or_relief(nearest, total, self._blend, points, *self._relief)

    def along(self, rays: Rays, t: Values) -> Values:
        """Return the signed distances at ray parameters."""
        return self(_point_at(rays.origins, rays.directions, t))


@fused
def _blend_in(
    blobs: Float[Tensor, "scene 1 few value"],
    blend: PerScene,
    points: Vectors,
    nearest: Values,
    total: Values,
) -> tuple[Values, Values]:
    """Add blobs to a running minimum and to the sum of exponentials relative to it."""
    affine, shape = blobs[:, 0, :, :12].unflatten(-1, (3, 4)), blobs[:, 0, :, 12:17]
    gaps = blob_distances(affine, shape, points)
    least = torch.minimum(nearest, gaps.amin(-1))
    kept = total * ((least - nearest) / blend).exp()
    return least, kept + ((least[..., None] - gaps) / blend[..., None]).exp().sum(-1)


@fused
def _blended_or_relief(
    nearest: Values, total: Values, blend: PerScene, points: Vectors, relief: Waves, level: Level
) -> Values:
    return torch.minimum(nearest - blend * total.log(), relief_distance(points, relief, level))


@fused
def _point_at(origins: Vectors, directions: Vectors, t: Values) -> Vectors:
    return origins + t[..., None] * directions


def sphere_trace(
    scene: SceneTensors, rays: Rays, steps: int, needed: Flags | None = None, end: float = FAR
) -> Values:
    """Return where rays meet blobs or the height field: the ray parameter, ``FAR`` for a miss.

    ``needed``: rays that count at all; ``end``: parameter beyond which no hit counts.
    """
    entry, leave = enter_box(scene.traced_box, rays)
    leave = leave.clamp_max(end)
    enters = entry < leave if needed is None else (entry < leave) & needed

    def trace(origins: Vectors, directions: Vectors, entry: Values, leave: Values) -> Values:
        return _trace(scene, Rays(origins, directions), entry, leave, steps)

    miss = torch.full_like(entry, FAR)
    return where_needed(enters, trace, (rays.origins, rays.directions, entry, leave), miss)


def traced_slot(scene: SceneTensors, points: Vectors) -> Values:
    """Return which blob is nearest to each point; one past the last is the height field."""
    nearest, blob = blob_distances(scene.blob_affine, scene.blob_shape, points).min(-1)
    relief = relief_distance(points, scene.relief[:, None], scene.relief_level[:, None])
    return torch.where(relief < nearest, scene.blob_affine.shape[1], blob).to(points.dtype)


def _trace(scene: SceneTensors, rays: Rays, t: Values, leave: Values, steps: int) -> Values:
    distance = DistanceField(scene, rays.origins)
    if kernels.on_host(rays.origins):
        t = _advance_active(distance, rays, t, leave, steps)
    else:
        for _ in range(steps):
            t = _step(t, distance.along(rays, t), rays.directions, leave)
    t, gap = _polish(distance, rays, t)
    way = t * rays.directions.norm(dim=-1)
    return torch.where((gap.abs() < _HIT * (1 + t)) & (t < leave) & (way > 1e-3), t, FAR)


@fused
def _step(t: Values, gap: Values, directions: Vectors, leave: Values) -> Values:
    """Step forward by what is surely free."""
    return torch.minimum(t + gap / directions.norm(dim=-1), leave + 1e-3)


def _advance_active(
    distance: DistanceField, rays: Rays, t: Values, leave: Values, steps: int
) -> Values:
    """Advance only the rays that have not arrived yet; every three steps these are chosen anew."""
    active = (t < leave)[0].nonzero()[:, 0]
    t = t.clone()
    for _ in range(0, steps, 3):
        few = Rays(rays.origins[:, active], rays.directions[:, active])
        now = before = t[:, active]
        for _ in range(3):
            before = now
            now = _step(now, distance.along(few, now), few.directions, leave[:, active])
        t[:, active] = now
        moved = (now - before) * few.directions.norm(dim=-1)
        active = active[((moved > 0.2 * _HIT * (1 + now)) & (now < leave[:, active]))[0]]
        if len(active) == 0:
            break
    return t


def _polish(distance: DistanceField, rays: Rays, t: Values) -> tuple[Values, Values]:
    """Replace the slow end of sphere tracing by two secant steps; also return the last distance."""
    speed = rays.directions.norm(dim=-1)
    step = 2e-3 / speed
    gap = distance.along(rays, t)
    for _ in range(2):
        slope = ((distance.along(rays, t + step) - gap) / step).clamp_max(-0.05 * speed)
        advance = (gap / -slope).clamp(min=-0.02 / speed, max=0.02 / speed)
        t = t + torch.where(gap.abs() < 0.02, advance, 0.0)
        gap = distance.along(rays, t)
    return t, gap


def surface_normal(scene: SceneTensors, points: Vectors) -> Vectors:
    """Gradient of the distance by differences along the corners of a tetrahedron."""
    normal, distance = torch.zeros_like(points), DistanceField(scene, points)
    for corner in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        shifted = [x + 2e-3 * sign for x, sign in zip(points.unbind(-1), corner, strict=True)]
        gap = distance(torch.stack(shifted, -1))
        normal = normal + torch.stack([sign * gap for sign in corner], -1)
    return torch.nn.functional.normalize(normal, dim=-1)
