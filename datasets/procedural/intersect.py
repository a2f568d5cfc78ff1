"""Where rays meet convex bodies, cards and the shell, in closed form.

Everything is elementwise over (scene, ray, slot), followed by one reduction over the slots: a
compiler fuses that into one kernel, and nothing waits for the host.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.procedural import fusing

EPSILON = 1e-4
"""Hits nearer than this along the ray do not count."""
FAR = 1e4
"""The ray parameter that stands for no hit."""
_TINY = 1e-9

Component = Float[Tensor, "scene #ray #slot"]


def one_by_one(rays: Float[Tensor, "scene ray ..."]) -> bool:
    """Tell whether a single scene is rendered on the CPU: there, leaving rays out pays.

    Elsewhere it would make the host wait for the device, and give every batch another shape.
    """
    return fusing.on_host(rays) and len(rays) == 1


def dot(first: Float[Tensor, "*#batch 3"], second: Float[Tensor, "*#batch 3"]) -> Tensor:
    """Multiply vectors, written out so that it is exact in every precision mode."""
    x, y, z = (first * second).unbind(-1)
    return x + y + z


def local_components(
    affine: Float[Tensor, "scene slot 3 4"], vectors: Float[Tensor, "scene ray 3"], points: bool
) -> list[Component]:
    """Bring vectors (or points) into every slot's frame.

    Written out rather than as a matrix product: that would lose bits under TF32.
    """
    x, y, z = (component[:, :, None] for component in vectors.unbind(-1))
    rows = affine[:, None].unbind(-2)
    first = [
        torch.addcmul(row[..., 3], row[..., 0], x) if points else row[..., 0] * x for row in rows
    ]
    return [
        torch.addcmul(torch.addcmul(value, row[..., 1], y), row[..., 2], z)
        for value, row in zip(first, rows, strict=True)
    ]


def _away_from_zero(values: Tensor, tiny: float = _TINY) -> Tensor:
    return torch.where(values.abs() < tiny, tiny, values)


def _slab_interval(o: list[Component], d: list[Component]) -> tuple[Component, Component]:
    """Ray parameters between which the ray is inside the cube of half-side 1."""
    near, far = [], []
    for origin, direction in zip(o, d, strict=True):
        inverse = 1 / _away_from_zero(direction)
        first, second = (-1 - origin) * inverse, (1 - origin) * inverse
        near.append(torch.minimum(first, second))
        far.append(torch.maximum(first, second))
    return (
        torch.maximum(torch.maximum(near[0], near[1]), near[2]),
        torch.minimum(torch.minimum(far[0], far[1]), far[2]),
    )


def _quadratic_roots(
    a: Component, half_b: Component, c: Component
) -> tuple[Component, Component, Component]:
    """Ordered roots of ``a t^2 + 2 half_b t + c`` and the discriminant, without cancellation.

    ``a`` must not be 0.
    """
    discriminant = half_b * half_b - a * c
    root = discriminant.clamp_min(0).sqrt()
    q = _away_from_zero(-(half_b + torch.where(half_b < 0, -root, root)), 1e-12)
    first, second = q / a, c / q
    return torch.minimum(first, second), torch.maximum(first, second), discriminant


def hit_convex(
    affine: Float[Tensor, "scene slot 3 4"],
    quadric: Float[Tensor, "scene slot 5"],
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
) -> Float[Tensor, "scene ray slot"]:
    """Enter the intersection of the unit cube with a quadric; ``FAR`` where the ray does not.

    In the cube the quadric must bound a convex region, as all ``scene.QUADRICS`` do.
    """
    o = local_components(affine, origins, points=True)
    d = local_components(affine, directions, points=False)
    near, far = _slab_interval(o, d)
    ax, ay, az, b, c0 = quadric[:, None].unbind(-1)
    px, py, pz = ax * d[0], ay * d[1], az * d[2]
    a = _away_from_zero(px * d[0] + py * d[1] + pz * d[2], 1e-12)
    half_b = px * o[0] + py * o[1] + pz * o[2] + 0.5 * b * d[2]
    c = ax * o[0] * o[0] + ay * o[1] * o[1] + (az * o[2] + b) * o[2] + c0
    low, high, discriminant = _quadratic_roots(a, half_b, c)
    inside_between = a > 0
    before_low = near < low
    # With a < 0 the ray is inside before the lower and after the upper root (a double cone), of
    # which one part at most lies in the cube.
    near_outer = torch.where(before_low, near, torch.maximum(near, high))
    far_outer = torch.where(before_low, torch.minimum(far, low), far)
    always = discriminant <= 0
    near_outer = torch.where(always, near, near_outer)
    far_outer = torch.where(always, far, far_outer)
    far_inner = torch.where(always, -FAR, torch.minimum(far, high))
    near = torch.where(inside_between, torch.maximum(near, low), near_outer)
    far = torch.where(inside_between, far_inner, far_outer)
    return torch.where((near < far) & (near > EPSILON), near, FAR)


def hit_cards(
    affine: Float[Tensor, "scene slot 3 4"],
    shape: Float[Tensor, "scene slot 9"],
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
) -> Float[Tensor, "scene ray slot"]:
    """Meet thin sheets ``w = bend_u u^2 + bend_v v^2`` that are cut out of ``|u|, |v| <= 1``.

    ``shape``: bend_u, bend_v, taper (0: rectangle, 1: pointed leaf), teeth along u, their slant,
    their share (1: no gaps), bars along v, their share, half width of the stem. A point is on the
    sheet if it lies within the taper and on a tooth, a bar or the stem.
    """
    o = local_components(affine, origins, points=True)
    d = local_components(affine, directions, points=False)
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


def _on_card(shape: Float[Tensor, "scene slot 9"], u: Component, v: Component) -> Tensor:
    taper, teeth, slant, tooth, bars, bar, stem = shape[:, None, :, 2:].unbind(-1)
    width = v.abs()
    # A leaf is widest at a third of its length and ends in a point.
    outline = 1 - taper * (0.55 * u * u + 0.45 * u.abs() * (u + 1).clamp(0, 1))
    within = (u.abs() <= 1) & (width <= outline)
    on_tooth = _fraction(u * teeth + slant * width) < tooth
    on_bar = _fraction(v * bars) < bar
    return within & (on_tooth | on_bar | (width < stem))


def _fraction(values: Tensor) -> Tensor:
    return values - values.floor()


def hit_shell(
    box: Float[Tensor, "scene 2 3"],
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
) -> tuple[Float[Tensor, "scene ray"], Int[Tensor, "scene ray"]]:
    """Leave the box that encloses the world: ray parameter and face (-x -y -z +x +y +z)."""
    inverse = 1 / _away_from_zero(directions)
    exits = torch.maximum(
        (box[:, None, 0] - origins) * inverse, (box[:, None, 1] - origins) * inverse
    )
    t, axis = exits.min(-1)
    forward = torch.gather(directions, -1, axis[..., None])[..., 0] > 0
    return t, axis + 3 * forward.long()


def enter_box(
    box: Float[Tensor, "scene 2 3"],
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
) -> tuple[Float[Tensor, "scene ray"], Float[Tensor, "scene ray"]]:
    """Ray parameters between which the ray is inside a box; the first is at least 0."""
    inverse = 1 / _away_from_zero(directions)
    first = (box[:, None, 0] - origins) * inverse
    second = (box[:, None, 1] - origins) * inverse
    return torch.minimum(first, second).amax(-1).clamp_min(0), torch.maximum(first, second).amin(-1)
