"""Signed distances of blended blobs, and sphere tracing (Hart, 1996)."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.procedural.renderer import geometry, kernels
from datasets.procedural.renderer.geometry import FAR, Flags, SceneTensors, Values, Vectors
from datasets.procedural.renderer.kernels import fused, slot_groups, where_needed
from utils.cameras import Rays

_BLOBS_IN_KERNEL = 5
"""Blobs per kernel call on an accelerator."""
_EMPTY_DISTANCE = 1e3
"""Distance to a padding slot, larger than that to any blob."""
_HIT_TOLERANCE = 4e-4
"""Distance to the surface that counts as a hit, for a ray parameter of 0; it grows with it."""

PerScene = Float[Tensor, "scene 1"]


def blob_distances(
    affine: Float[Tensor, "scene blob 3 4"], shape: Float[Tensor, "scene blob 5"], points: Vectors
) -> Float[Tensor, "scene ray blob"]:
    """Return signed distances to rounded boxes (including balls and capsules) and rings."""
    x, y, z = geometry.to_local(affine, points, points=True)
    half_x, half_y, half_z, radius, ring = shape[:, None].unbind(-1)
    around = (x * x + y * y).sqrt() - ring
    x, y = torch.where(ring > 0, around, x), torch.where(ring > 0, 0.0, y)
    x, y, z = x.abs() - half_x, y.abs() - half_y, z.abs() - half_z
    outside = (x.clamp_min(0) ** 2 + y.clamp_min(0) ** 2 + z.clamp_min(0) ** 2).sqrt()
    inside = torch.maximum(torch.maximum(x, y), z).clamp_max(0)
    return outside + inside - radius


class DistanceField:
    """Signed distance to a scene's blobs, blended by a smooth minimum of exponentials."""

    def __init__(self, scene: SceneTensors, rays: Vectors) -> None:
        """Prepare the kernel inputs for at most as many points as ``rays``."""
        self._blend = scene.blob_blend[:, None]
        table = torch.cat([scene.blob_affine.flatten(2), scene.blob_shape], -1)
        used = scene.blob_shape[..., 3] > 0
        # Negative half sides and radii make padding slots far from all points.
        self._groups = slot_groups(table, _BLOBS_IN_KERNEL, used, -_EMPTY_DISTANCE)
        self._nearest = torch.full(rays.shape[:2], _EMPTY_DISTANCE, device=rays.device)
        self._total = torch.zeros_like(self._nearest)

    def __call__(self, points: Vectors) -> Values:
        """Return the signed distances of points."""
        nearest, total = self._nearest[:, : points.shape[1]], self._total[:, : points.shape[1]]
        for group in self._groups:
            if group.shape[2]:
                nearest, total = _blend_in(group, self._blend, points, nearest, total)
        return _blended(nearest, total, self._blend)

    def along(self, rays: Rays, t: Values) -> Values:
        """Return the signed distances at ray parameters."""
        return self(_point_at(rays.origins, rays.directions, t))


@fused
def _blend_in(
    blobs: Tensor, blend: PerScene, points: Vectors, nearest: Values, total: Values
) -> tuple[Values, Values]:
    """Add blobs to the running minimum and to the sum of exponentials relative to it."""
    affine, shape = blobs[:, 0, :, :12].unflatten(-1, (3, 4)), blobs[:, 0, :, 12:17]
    gaps = blob_distances(affine, shape, points)
    least = torch.minimum(nearest, gaps.amin(-1))
    kept = total * ((least - nearest) / blend).exp()
    return least, kept + ((least[..., None] - gaps) / blend[..., None]).exp().sum(-1)


@fused
def _blended(nearest: Values, total: Values, blend: PerScene) -> Values:
    return nearest - blend * total.clamp_min(1e-30).log()


@fused
def _point_at(origins: Vectors, directions: Vectors, t: Values) -> Vectors:
    return origins + t[..., None] * directions


def sphere_trace(
    scene: SceneTensors, rays: Rays, steps: int, needed: Flags | None = None, end: float = FAR
) -> Values:
    """Return the ray parameter at which ``needed`` rays hit blobs before ``end``, or ``FAR``."""
    entry, leave = geometry.enter_box(scene.blob_box, rays)
    leave = leave.clamp_max(end)
    enters = entry < leave if needed is None else (entry < leave) & needed
    arguments = (rays.origins, rays.directions, entry, leave)
    missed = torch.full_like(entry, FAR)
    return where_needed(enters, partial(_trace, scene, steps), arguments, missed)


def _trace(
    scene: SceneTensors, steps: int, origins: Vectors, directions: Vectors, t: Values, leave: Values
) -> Values:
    rays, distance = Rays(origins, directions), DistanceField(scene, origins)
    if kernels.on_host(origins):
        t = _advance_active(distance, rays, t, leave, steps)
    else:
        for _ in range(steps):
            t = _step(t, distance.along(rays, t), directions, leave)
    t, gap = _polish(distance, rays, t)
    length = t * directions.norm(dim=-1)
    on_surface = gap.abs() < _HIT_TOLERANCE * (1 + t)
    return torch.where(on_surface & (t < leave) & (length > 1e-3), t, FAR)


@fused
def _step(t: Values, gap: Values, directions: Vectors, leave: Values) -> Values:
    """Advance by the distance to the nearest surface."""
    return torch.minimum(t + gap / directions.norm(dim=-1), leave + 1e-3)


def _advance_active(
    distance: DistanceField, rays: Rays, t: Values, leave: Values, steps: int
) -> Values:
    """Advance only the rays that have not converged; these are selected every three steps."""
    active, t = (t < leave)[0].nonzero()[:, 0], t.clone()
    for _ in range(0, steps, 3):
        part, end = Rays(rays.origins[:, active], rays.directions[:, active]), leave[:, active]
        current = previous = t[:, active]
        for _ in range(3):
            previous = current
            current = _step(current, distance.along(part, current), part.directions, end)
        t[:, active] = current
        moved = (current - previous) * part.directions.norm(dim=-1)
        unconverged = moved > 0.2 * _HIT_TOLERANCE * (1 + current)
        active = active[(unconverged & (current < end))[0]]
        if len(active) == 0:
            break
    return t


def _polish(distance: DistanceField, rays: Rays, t: Values) -> tuple[Values, Values]:
    """Refine hits by two secant steps; return ray parameters and remaining distances."""
    speed = rays.directions.norm(dim=-1)
    step = 2e-3 / speed
    gap = distance.along(rays, t)
    for _ in range(2):
        slope = ((distance.along(rays, t + step) - gap) / step).clamp_max(-0.05 * speed)
        advance = (gap / -slope).clamp(min=-0.02 / speed, max=0.02 / speed)
        t = t + torch.where(gap.abs() < 0.02, advance, 0.0)
        gap = distance.along(rays, t)
    return t, gap


def nearest_blob(scene: SceneTensors, points: Vectors) -> Values:
    """Return the index of the blob nearest to each point."""
    return blob_distances(scene.blob_affine, scene.blob_shape, points).argmin(-1).to(points.dtype)


def blob_normal(scene: SceneTensors, points: Vectors) -> Vectors:
    """Return the distance's gradient by finite differences along a tetrahedron's corners."""
    normal, distance = torch.zeros_like(points), DistanceField(scene, points)
    for corner in points.new_tensor([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]]):
        normal = normal + distance(points + 2e-3 * corner)[..., None] * corner
    return torch.nn.functional.normalize(normal, dim=-1)
