"""Worlds as padded tensors, which the renderer reads.

Every surface fills a slot. Slots are numbered through: convex shapes, cards, blobs, the six faces
of the shell (the box that is floor, walls and ceiling).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
    """Worlds as padded tensors, ready for the device."""

    convex_affine: Float[Tensor, "scene convex 3 4"]
    """World to the shape's unit cube."""
    convex_shape: Float[Tensor, "scene convex 5"]
    convex_sphere: Float[Tensor, "scene convex 4"]
    """Centre and radius of a sphere around the shape; radius 0 for a free slot."""
    convex_shade: Float[Tensor, "scene convex"]
    """Radius of the sphere that stands for the shape in ambient occlusion."""
    card_affine: Float[Tensor, "scene card 3 4"]
    card_shape: Float[Tensor, "scene card 9"]
    card_sphere: Float[Tensor, "scene card 4"]
    blob_affine: Float[Tensor, "scene blob 3 4"]
    """World to the blob's own frame: rigid, so that distances stay."""
    blob_shape: Float[Tensor, "scene blob 5"]
    """Half sides of the core box, rounding radius, ring radius (0 if it is no ring)."""
    blob_blend: Float[Tensor, " scene"]
    """Width over which blobs blend into one another."""
    blob_box: Float[Tensor, "scene 2 3"]
    """Bounds of all blobs."""
    shell_box: Float[Tensor, "scene 2 3"]
    slot_frame: Float[Tensor, "scene slot 3 4"]
    """World to the coordinates in which a surface's texture lives: rigid."""
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
