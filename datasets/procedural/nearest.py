"""The nearest convex body or card along each ray, in closed form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.procedural import fusing
from datasets.procedural.fusing import fused, slot_groups
from datasets.procedural.intersect import FAR, dot, hit_cards, hit_convex, one_by_one
from datasets.procedural.tables import SceneTables

_SLOTS_IN_KERNEL = 3
"""Slots that one kernel looks at on an accelerator."""
_BUNDLE = 4096
"""Rays that are culled together on the CPU."""


def nearest_closed_form(
    scene: SceneTables,
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
    apex: Float[Tensor, "scene 3"],
    slack: float,
) -> tuple[Float[Tensor, "scene ray"], Int[Tensor, "scene ray"]]:
    """Nearest convex body or card: ray parameter (``FAR`` for a miss) and slot.

    All rays start or end within ``slack`` of the apex. For a single scene on the CPU, neighbours
    look together at those surfaces only that reach into their common cone.
    """
    if not fusing.on_host(origins):
        return _running_nearest(scene, origins, directions)
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
    for hit, affine, shape, ids, first in (
        (hit_convex, tables[0], tables[1], numbers[0], 0),
        (hit_cards, tables[2], tables[3], numbers[1], first_card),
    ):
        if affine.shape[1] == 0:
            continue
        nearest, index = hit(affine, shape, origins, directions).min(-1)
        index = index if ids is None else ids[index]
        closer = nearest < t
        t, slot = torch.where(closer, nearest, t), torch.where(closer, index + first, slot)
    return t, slot


def _running_nearest(
    scene: SceneTables,
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
) -> tuple[Float[Tensor, "scene ray"], Int[Tensor, "scene ray"]]:
    """Nearest hit with convex bodies and cards: a few slots to a kernel, which keeps the nearest.

    A kernel that reduces over all slots takes minutes to compile.
    """
    origins, directions = origins.contiguous(), directions.contiguous()
    t = torch.full_like(directions[..., 0], FAR)
    slot = torch.zeros_like(t)
    first = 0
    for closer, affine, shape in (
        (_closer_convex, scene.convex_affine, scene.convex_quadric),
        (_closer_cards, scene.card_affine, scene.card_shape),
    ):
        scenes, slots = affine.shape[:2]
        numbers = torch.arange(first, first + slots, dtype=t.dtype, device=t.device)
        numbered = [numbers[None, :, None].expand(scenes, -1, -1), affine.flatten(2), shape]
        for group in slot_groups(torch.cat(numbered, -1), _SLOTS_IN_KERNEL):
            t, slot = closer(group, origins, directions, t, slot)
        first += slots
    return t, slot.long()


@fused
def _closer_convex(
    slots: Float[Tensor, "scene 1 few value"],
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
    t: Float[Tensor, "scene ray"],
    slot: Float[Tensor, "scene ray"],
) -> tuple[Float[Tensor, "scene ray"], Float[Tensor, "scene ray"]]:
    return _closer(hit_convex, slots[..., :18], (origins, directions), t, slot)


@fused
def _closer_cards(
    slots: Float[Tensor, "scene 1 few value"],
    origins: Float[Tensor, "scene ray 3"],
    directions: Float[Tensor, "scene ray 3"],
    t: Float[Tensor, "scene ray"],
    slot: Float[Tensor, "scene ray"],
) -> tuple[Float[Tensor, "scene ray"], Float[Tensor, "scene ray"]]:
    return _closer(hit_cards, slots[..., :22], (origins, directions), t, slot)


def _closer(
    hit: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    slots: Float[Tensor, "scene 1 few value"],
    rays: tuple[Float[Tensor, "scene ray 3"], Float[Tensor, "scene ray 3"]],
    t: Float[Tensor, "scene ray"],
    slot: Float[Tensor, "scene ray"],
) -> tuple[Float[Tensor, "scene ray"], Float[Tensor, "scene ray"]]:
    """Look at one slot after the other; rows are the slot's number, its frame, its shape."""
    for row in slots.unbind(2):
        found = hit(row[..., 1:13].unflatten(-1, (3, 4)), row[..., 13:], *rays)[..., 0]
        slot = torch.where(found < t, row[..., 0], slot)
        t = torch.minimum(found, t)
    return t, slot


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
