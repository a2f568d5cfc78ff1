"""Scenes as padded tensors, and ray intersections with convex shapes, cards and the shell.

Every surface has a slot. Slot numbers run over convex shapes, cards, blobs and the six faces of the
shell (the box of floor, walls and ceiling). Intersections are in closed form and elementwise over
(scene, ray, slot), followed by one reduction over the slots: a compiler fuses that into one kernel,
without synchronisation with the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.cameras import Rays

Values = Float[Tensor, "scene ray"]
Vectors = Float[Tensor, "scene ray 3"]
Numbers = Int[Tensor, "scene ray"]
Flags = Bool[Tensor, "scene ray"]

SHELL_FACES = 6


@dataclass(frozen=True)
class SceneTensors:
    """Scenes as padded tensors; affine maps go from the world to a slot's frame."""

    convex_affine: Float[Tensor, "scene convex 3 4"]
    convex_shape: Float[Tensor, "scene convex 5"]
    convex_sphere: Float[Tensor, "scene convex 4"]
    """Centre and radius of the bounding sphere; radius 0 for a free slot."""
    convex_shade: Float[Tensor, "scene convex"]
    """Radius of the sphere that approximates the shape in ambient occlusion."""
    card_affine: Float[Tensor, "scene card 3 4"]
    card_shape: Float[Tensor, "scene card 9"]
    card_sphere: Float[Tensor, "scene card 4"]
    blob_affine: Float[Tensor, "scene blob 3 4"]
    """Rigid, so that distances are preserved."""
    blob_shape: Float[Tensor, "scene blob 5"]
    """Half sides of the core box, rounding radius, ring radius (0 without a ring)."""
    blob_blend: Float[Tensor, " scene"]
    """Width over which blobs blend."""
    blob_box: Float[Tensor, "scene 2 3"]
    shell_box: Float[Tensor, "scene 2 3"]
    slot_frame: Float[Tensor, "scene slot 3 4"]
    """Rigid map from the world to the texture coordinates of a surface."""
    slot_wrap: Float[Tensor, "scene slot"]
    """Radius of a cylindrical texture mapping; 0 for a flat one."""
    slot_material: Int[Tensor, "scene slot"]
    """Row of ``materials``; negative where there is no surface."""
    materials: Float[Tensor, "scene material value"]
    backdrop: Float[Tensor, "scene 5 3"]
    """Zenith, horizon, ground, (clouds, haze, 0), ambient light."""

    def map(self, change: Callable[[Tensor], Tensor]) -> SceneTensors:
        """Apply a function to each tensor."""
        return SceneTensors(**{name: change(tensor) for name, tensor in vars(self).items()})

    @property
    def slot_starts(self) -> tuple[int, int, int]:
        """First slots of the cards, the blobs and the shell."""
        cards = self.convex_affine.shape[1]
        blobs = cards + self.card_affine.shape[1]
        return cards, blobs, blobs + self.blob_affine.shape[1]


def gather_rows(table: Float[Tensor, "scene slot value"], slot: Numbers) -> Tensor:
    """Look up the row of a table for each ray's slot."""
    return torch.gather(table, 1, slot[..., None].expand(-1, -1, table.shape[-1]))


EPSILON = 1e-4
"""Smallest ray parameter of a hit."""
FAR = 1e4
"""Ray parameter of a miss."""
_TINY = 1e-9

PerSlot = Float[Tensor, "scene #ray #slot"]
Affine = Float[Tensor, "scene slot 3 4"]
Box = Float[Tensor, "scene 2 3"]


def dot(first: Float[Tensor, "*#batch 3"], second: Float[Tensor, "*#batch 3"]) -> Tensor:
    """Return dot products, without matrix products, which TF32 would round."""
    x, y, z = (first * second).unbind(-1)
    return x + y + z


def to_local(affine: Affine, vectors: Vectors, points: bool) -> list[PerSlot]:
    """Transform vectors or points to each slot's frame, as x, y, z, unaffected by TF32."""
    x, y, z = (component[:, :, None] for component in vectors.unbind(-1))
    local = []
    for row in affine[:, None].unbind(-2):
        a, b, c, d = row.unbind(-1)
        first = torch.addcmul(d, a, x) if points else a * x
        local.append(torch.addcmul(torch.addcmul(first, b, y), c, z))
    return local


def quadric_value(quadric: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Evaluate ``ax x^2 + ay y^2 + az z^2 + b z + c``, which is negative inside."""
    ax, ay, az, b, c = quadric.unbind(-1)
    return ax * x * x + ay * y * y + (az * z + b) * z + c


def _away_from_zero(values: Tensor, tiny: float = _TINY) -> Tensor:
    return torch.where(values.abs() < tiny, tiny, values)


def _slab_interval(o: list[PerSlot], d: list[PerSlot]) -> tuple[PerSlot, PerSlot]:
    """Intersect rays with the cube of half-side 1: parameters of entry and exit."""
    near, far = [], []
    for origin, direction in zip(o, d, strict=True):
        inverse = 1 / _away_from_zero(direction)
        near.append(-origin * inverse - inverse.abs())
        far.append(-origin * inverse + inverse.abs())
    return reduce(torch.maximum, near), reduce(torch.minimum, far)


def _quadratic_roots(a: PerSlot, half_b: PerSlot, c: PerSlot) -> tuple[PerSlot, PerSlot, PerSlot]:
    """Return the ordered roots of ``a t^2 + 2 half_b t + c``, stably, and the discriminant."""
    discriminant = half_b * half_b - a * c
    root = discriminant.clamp_min(0).sqrt()
    q = _away_from_zero(-(half_b + torch.where(half_b < 0, -root, root)), 1e-12)
    first, second = q / a, c / q
    return torch.minimum(first, second), torch.maximum(first, second), discriminant


def hit_convex(
    affine: Affine, quadric: Float[Tensor, "scene slot 5"], origins: Vectors, directions: Vectors
) -> Float[Tensor, "scene ray slot"]:
    """Intersect rays with the part of a quadric in the cube of half-side 1; ``FAR`` for a miss.

    In the cube, the quadric must bound a convex region, as all of ``worlds.scene.QUADRICS`` do.
    """
    o, d = to_local(affine, origins, True), to_local(affine, directions, False)
    near, far = _slab_interval(o, d)
    ax, ay, az, b, _ = quadric[:, None].unbind(-1)
    px, py, pz = ax * d[0], ay * d[1], az * d[2]
    a = _away_from_zero(px * d[0] + py * d[1] + pz * d[2], 1e-12)
    half_b = px * o[0] + py * o[1] + pz * o[2] + 0.5 * b * d[2]
    low, high, discriminant = _quadratic_roots(a, half_b, quadric_value(quadric[:, None], *o))
    before_low, no_roots = near < low, discriminant <= 0
    # With a < 0 (a double cone), the ray is inside before the lower and after the upper root; at
    # most one of these parts lies in the cube.
    near_outer = torch.where(before_low | no_roots, near, torch.maximum(near, high))
    far_outer = torch.where(before_low & ~no_roots, torch.minimum(far, low), far)
    far_inner = torch.where(no_roots, -FAR, torch.minimum(far, high))
    near = torch.where(a > 0, torch.maximum(near, low), near_outer)
    far = torch.where(a > 0, far_inner, far_outer)
    return torch.where((near < far) & (near > EPSILON), near, FAR)


def hit_cards(
    affine: Affine, shape: Float[Tensor, "scene slot 9"], origins: Vectors, directions: Vectors
) -> Float[Tensor, "scene ray slot"]:
    """Intersect rays with thin sheets ``w = bend_u u^2 + bend_v v^2``, ``|u|, |v| <= 1``.

    ``shape``: bend_u, bend_v, taper (0: rectangle, 1: pointed leaf), number of teeth along u, their
    slant, their share (1: no gaps), number of bars along v, their share, half width of the stem. A
    point is on the sheet if it lies within the taper and on a tooth, a bar or the stem.
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
    in_outline = (u.abs() <= 1) & (width <= outline)
    on_tooth = fraction(u * teeth + slant * width) < tooth
    return in_outline & (on_tooth | (fraction(v * bars) < bar) | (width < stem))


def fraction(values: Tensor) -> Tensor:
    """Return the fractional part, in [0, 1)."""
    return values - values.floor()


def hit_shell(box: Box, rays: Rays) -> tuple[Values, Numbers]:
    """Return where rays leave the box: ray parameter and face (-x -y -z +x +y +z)."""
    low, high = _box_crossings(box, rays)
    t, axis = torch.maximum(low, high).min(-1)
    forward = torch.gather(rays.directions, -1, axis[..., None])[..., 0] > 0
    return t, axis + 3 * forward.long()


def enter_box(box: Box, rays: Rays) -> tuple[Values, Values]:
    """Intersect rays with a box: parameters of entry, at least 0, and exit."""
    low, high = _box_crossings(box, rays)
    return torch.minimum(low, high).amax(-1).clamp_min(0), torch.maximum(low, high).amin(-1)


def _box_crossings(box: Box, rays: Rays) -> tuple[Vectors, Vectors]:
    inverse = 1 / _away_from_zero(rays.directions)
    return (box[:, None, 0] - rays.origins) * inverse, (box[:, None, 1] - rays.origins) * inverse
