"""Worlds as padded tensors, and where rays meet convex shapes, cards and the shell.

Every surface fills a slot. Slots are numbered through: convex shapes, cards, blobs, the six faces
of the shell (the box that is floor, walls and ceiling). Intersections are in closed form and
elementwise over (scene, ray, slot), followed by one reduction over the slots: a compiler fuses that
into one kernel, and nothing waits for the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Values = Float[Tensor, "scene ray"]
Vectors = Float[Tensor, "scene ray 3"]
Numbers = Int[Tensor, "scene ray"]
Flags = Bool[Tensor, "scene ray"]

SHELL_FACES = 6


@dataclass(frozen=True)
class SceneTensors:
    """Worlds as padded tensors, ready for the device; affine maps go from the world."""

    convex_affine: Float[Tensor, "scene convex 3 4"]
    convex_shape: Float[Tensor, "scene convex 5"]
    convex_sphere: Float[Tensor, "scene convex 4"]
    """Centre and radius of a sphere around the shape; radius 0 for a free slot."""
    convex_shade: Float[Tensor, "scene convex"]
    """Radius of the sphere that stands for the shape in ambient occlusion."""
    card_affine: Float[Tensor, "scene card 3 4"]
    card_shape: Float[Tensor, "scene card 9"]
    card_sphere: Float[Tensor, "scene card 4"]
    blob_affine: Float[Tensor, "scene blob 3 4"]
    """Rigid, so that distances stay."""
    blob_shape: Float[Tensor, "scene blob 5"]
    """Half sides of the core box, rounding radius, ring radius (0 if it is no ring)."""
    blob_blend: Float[Tensor, " scene"]
    """Width over which blobs blend into one another."""
    blob_box: Float[Tensor, "scene 2 3"]
    shell_box: Float[Tensor, "scene 2 3"]
    slot_frame: Float[Tensor, "scene slot 3 4"]
    """To the coordinates in which a surface's texture lives: rigid."""
    slot_wrap: Float[Tensor, "scene slot"]
    """Radius about which a texture is rolled; 0 for flat mapping."""
    slot_material: Int[Tensor, "scene slot"]
    """Row of ``materials``; negative where there is no surface."""
    materials: Float[Tensor, "scene material value"]
    backdrop: Float[Tensor, "scene 5 3"]
    """Zenith, horizon, ground, (clouds, haze, 0), ambient light."""

    def map(self, change: Callable[[Tensor], Tensor]) -> SceneTensors:
        """Apply a function to every tensor."""
        return SceneTensors(**{name: change(tensor) for name, tensor in vars(self).items()})

    @property
    def slot_starts(self) -> tuple[int, int, int]:
        """First slots of the cards, the blobs and the shell."""
        cards = self.convex_affine.shape[1]
        blobs = cards + self.card_affine.shape[1]
        return cards, blobs, blobs + self.blob_affine.shape[1]


def pick(table: Float[Tensor, "scene slot value"], slot: Numbers) -> Tensor:
    """Look up each ray's row of a table."""
    return torch.gather(table, 1, slot[..., None].expand(-1, -1, table.shape[-1]))


EPSILON = 1e-4
"""Hits nearer than this along the ray do not count."""
FAR = 1e4
"""The ray parameter that stands for no hit."""
_TINY = 1e-9

PerSlot = Float[Tensor, "scene #ray #slot"]
Affine = Float[Tensor, "scene slot 3 4"]
Box = Float[Tensor, "scene 2 3"]


class Rays(NamedTuple):
    """Half lines; directions of any length, in whose units ray parameters count."""

    origins: Vectors
    directions: Vectors


def dot(first: Float[Tensor, "*#batch 3"], second: Float[Tensor, "*#batch 3"]) -> Tensor:
    """Multiply vectors, written out so that it is exact in every precision mode."""
    x, y, z = (first * second).unbind(-1)
    return x + y + z


def to_local(affine: Affine, vectors: Vectors, points: bool) -> list[PerSlot]:
    """Bring vectors (or points) into every slot's frame as x, y, z, exactly also under TF32."""
    x, y, z = (component[:, :, None] for component in vectors.unbind(-1))
    local = []
    for row in affine[:, None].unbind(-2):
        a, b, c, d = row.unbind(-1)
        first = torch.addcmul(d, a, x) if points else a * x
        local.append(torch.addcmul(torch.addcmul(first, b, y), c, z))
    return local


def quadric_value(quadric: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Evaluate ``ax x^2 + ay y^2 + az z^2 + b z + c``: negative inside."""
    ax, ay, az, b, c = quadric.unbind(-1)
    return ax * x * x + ay * y * y + (az * z + b) * z + c


def _away_from_zero(values: Tensor, tiny: float = _TINY) -> Tensor:
    return torch.where(values.abs() < tiny, tiny, values)


def _slab_interval(o: list[PerSlot], d: list[PerSlot]) -> tuple[PerSlot, PerSlot]:
    """Ray parameters between which the ray is inside the cube of half-side 1."""
    near, far = [], []
    for origin, direction in zip(o, d, strict=True):
        inverse = 1 / _away_from_zero(direction)
        near.append(-origin * inverse - inverse.abs())
        far.append(-origin * inverse + inverse.abs())
    return reduce(torch.maximum, near), reduce(torch.minimum, far)


def _quadratic_roots(a: PerSlot, half_b: PerSlot, c: PerSlot) -> tuple[PerSlot, PerSlot, PerSlot]:
    """Ordered roots of ``a t^2 + 2 half_b t + c`` and the discriminant, without cancellation."""
    discriminant = half_b * half_b - a * c
    root = discriminant.clamp_min(0).sqrt()
    q = _away_from_zero(-(half_b + torch.where(half_b < 0, -root, root)), 1e-12)
    first, second = q / a, c / q
    return torch.minimum(first, second), torch.maximum(first, second), discriminant


def hit_convex(
    affine: Affine, quadric: Float[Tensor, "scene slot 5"], origins: Vectors, directions: Vectors
) -> Float[Tensor, "scene ray slot"]:
    """Enter the intersection of the unit cube with a quadric; ``FAR`` where the ray does not.

    In the cube the quadric must bound a convex region, as all of ``worlds.scene.QUADRICS`` do.
    """
    o, d = to_local(affine, origins, True), to_local(affine, directions, False)
    near, far = _slab_interval(o, d)
    ax, ay, az, b, _ = quadric[:, None].unbind(-1)
    px, py, pz = ax * d[0], ay * d[1], az * d[2]
    a = _away_from_zero(px * d[0] + py * d[1] + pz * d[2], 1e-12)
    half_b = px * o[0] + py * o[1] + pz * o[2] + 0.5 * b * d[2]
    low, high, discriminant = _quadratic_roots(a, half_b, quadric_value(quadric[:, None], *o))
    before_low, always = near < low, discriminant <= 0
    # With a < 0 the ray is inside before the lower and after the upper root (a double cone), of
    # which one part at most lies in the cube.
    near_outer = torch.where(before_low | always, near, torch.maximum(near, high))
    far_outer = torch.where(before_low & ~always, torch.minimum(far, low), far)
    far_inner = torch.where(always, -FAR, torch.minimum(far, high))
    near = torch.where(a > 0, torch.maximum(near, low), near_outer)
    far = torch.where(a > 0, far_inner, far_outer)
    return torch.where((near < far) & (near > EPSILON), near, FAR)


def hit_cards(
    affine: Affine, shape: Float[Tensor, "scene slot 9"], origins: Vectors, directions: Vectors
) -> Float[Tensor, "scene ray slot"]:
    """Meet thin sheets ``w = bend_u u^2 + bend_v v^2`` that are cut out of ``|u|, |v| <= 1``.

    ``shape``: bend_u, bend_v, taper (0: rectangle, 1: pointed leaf), teeth along u, their slant,
    their share (1: no gaps), bars along v, their share, half width of the stem. A point is on the
    sheet if it lies within the taper and on a tooth, a bar or the stem.
    """
    o, d = to_local(affine, origins, True), to_local(affine, directions, False)
    bend_u, bend_v = shape[:, None, :, 0], shape[:, None, :, 1]
    a = _away_from_zero(-(bend_u * d[0] * d[0] + bend_v * d[1] * d[1]), 1e-12)
    half_b = 0.5 * d[2] - bend_u * o[0] * d[0] - bend_v * o[1] * d[1]
    c = o[2] - bend_u * o[0] * o[0] - bend_v * o[1] * o[1]
    low, high, discriminant = _quadratic_roots(a, half_b, c)
    hit = torch.full_like(low, FAR)
    for t in (high, low):
        u, v = o[0] + t * d[0], o[1] + t * d[1]
        on_sheet = (discriminant > 0) & (t > EPSILON) & (t < FAR) & _on_card(shape, u, v)
        hit = torch.where(on_sheet, t, hit)
    return hit


def _on_card(shape: Float[Tensor, "scene slot 9"], u: PerSlot, v: PerSlot) -> Tensor:
    taper, teeth, slant, tooth, bars, bar, stem = shape[:, None, :, 2:].unbind(-1)
    width = v.abs()
    # A leaf is widest at a third of its length and ends in a point.
    outline = 1 - taper * (0.55 * u * u + 0.45 * u.abs() * (u + 1).clamp(0, 1))
    within = (u.abs() <= 1) & (width <= outline)
    on_tooth = fraction(u * teeth + slant * width) < tooth
    return within & (on_tooth | (fraction(v * bars) < bar) | (width < stem))


def fraction(values: Tensor) -> Tensor:
    """Return what lies above the next lower integer."""
    return values - values.floor()


def hit_shell(box: Box, rays: Rays) -> tuple[Values, Numbers]:
    """Leave the box that encloses the world: ray parameter and face (-x -y -z +x +y +z)."""
    low, high = _box_crossings(box, rays)
    t, axis = torch.maximum(low, high).min(-1)
    forward = torch.gather(rays.directions, -1, axis[..., None])[..., 0] > 0
    return t, axis + 3 * forward.long()


def enter_box(box: Box, rays: Rays) -> tuple[Values, Values]:
    """Ray parameters between which the ray is inside a box; the first is at least 0."""
    low, high = _box_crossings(box, rays)
    return torch.minimum(low, high).amax(-1).clamp_min(0), torch.maximum(low, high).amin(-1)


def _box_crossings(box: Box, rays: Rays) -> tuple[Vectors, Vectors]:
    inverse = 1 / _away_from_zero(rays.directions)
    return (box[:, None, 0] - rays.origins) * inverse, (box[:, None, 1] - rays.origins) * inverse
