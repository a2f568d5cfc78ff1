"""What surfaces look like: materials evaluated once, where a ray has hit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.procedural.intersect import one_by_one
from datasets.procedural.materials import COLUMN, PATTERNS
from datasets.procedural.noise import octaves
from datasets.procedural.patterns import PATTERN_CODE, Layers, Ray, Spot, plain
from datasets.procedural.photos import photo_colour


def surface_coordinates(
    solid: Float[Tensor, "scene ray 3"],
    normal: Float[Tensor, "scene ray 3"],
    wrap: Ray,
    turn: Ray,
) -> tuple[Ray, Ray]:
    """Map a surface flat: along the axis it faces most, or rolled around its z axis."""
    x, y, z = solid.unbind(-1)
    facing = normal.abs()
    sideways = (facing[..., 2] < 0.7) & (wrap > 0)
    along_x = (facing[..., 0] > facing[..., 1]) & (facing[..., 0] >= facing[..., 2])
    along_y = (facing[..., 1] >= facing[..., 0]) & (facing[..., 1] >= facing[..., 2])
    u = torch.where(along_x, y, x)
    v = torch.where(along_x | along_y, -z, y)
    u = torch.where(sideways, torch.atan2(y, x) * wrap, u)
    v = torch.where(sideways, -z, v)
    cosine, sine = turn.cos(), turn.sin()
    return cosine * u - sine * v, sine * u + cosine * v


@dataclass(frozen=True)
class SurfaceColour:
    """Colour and relief of the surface at a hit."""

    albedo: Float[Tensor, "scene ray 3"]
    slope: Float[Tensor, "scene ray 3"]
    """Gradient of the relief in the surface's own frame."""
    u: Ray
    v: Ray


def surface_colour(
    solid: Float[Tensor, "scene ray 3"],
    normal: Float[Tensor, "scene ray 3"],
    wrap: Ray,
    footprint: Ray,
    material: Float[Tensor, "scene ray value"],
    photos: Float[Tensor, "photo texel 3"] | None = None,
) -> SurfaceColour:
    """Evaluate materials at hits; ``solid`` and ``normal`` are in the surface's own frame."""
    value = {name: material[..., index] for name, index in COLUMN.items()}
    seed = value["seed"].to(torch.int32)
    u, v = surface_coordinates(solid, normal, wrap, value["turn"])
    noise_frequency = value["noise_frequency"]
    cloud, slope = octaves(solid * noise_frequency[..., None], seed, footprint * noise_frequency)
    frequency = value["frequency"]
    spot = Spot(
        solid=solid,
        u=u * frequency,
        v=v * frequency,
        height=solid[..., 2] * frequency,
        footprint=footprint * frequency,
        cloud=cloud,
        seed=seed,
        aspect=value["aspect"].clamp_min(0.1),
        detail=value["detail"],
    )
    blend, accent = _pick_pattern(spot, value["pattern"])
    first, second, third = material[..., 0:3], material[..., 3:6], material[..., 6:9]
    albedo = first + blend[..., None] * (second - first)
    albedo = albedo + accent[..., None] * (third - albedo)
    if photos is not None:
        shown = photo_colour(photos, seed.long(), spot.u, spot.v, spot.footprint)
        wears_photo = value["pattern"] == PATTERNS.index("photo")
        albedo = torch.where(wears_photo[..., None], shown, albedo)
    albedo = albedo * (1 + value["noise"] * cloud).clamp_min(0.1)[..., None]
    # The relief's slope per world unit would grow with frequency; its look should not.
    relief = value["bump"][..., None] * slope
    return SurfaceColour(albedo.clamp(0.005, 0.95), relief, spot.u, spot.v)


def _pick_pattern(spot: Spot, index: Ray) -> Layers:
    blend, accent = plain(spot)
    for number, name in enumerate(PATTERNS):
        if name == "plain":
            continue
        chosen = index == number
        if one_by_one(spot.u) and not bool(chosen.any()):
            continue
        layers = PATTERN_CODE[name](spot)
        blend = torch.where(chosen, layers[0], blend)
        accent = torch.where(chosen, layers[1], accent)
    return blend, accent
