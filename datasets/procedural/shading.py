"""How surfaces take light: lamps with shadows, light from all around, highlights, haze."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datasets.procedural.intersect import dot, one_by_one
from datasets.procedural.materials import COLUMN
from datasets.procedural.noise import octaves
from datasets.procedural.openness import openness
from datasets.procedural.tables import SceneTables
from datasets.procedural.textures import surface_colour
from datasets.procedural.tracing import Hits, pick, visibility

SHADOW_LIGHTS = 2
"""The first lights cast shadows: the first in full, the second tested by half the rays."""


@dataclass(frozen=True)
class LightSamples:
    """The lamps of one view, and which point of each lamp every ray tests."""

    lights: Float[Tensor, "scene light 8"]
    """Position, radius, colour, squared distance at which the colour holds."""
    angle: Float[Tensor, "scene ray"]
    radius: Float[Tensor, "scene ray"]
    """Place on the lamp's disc, in [0, 1]."""
    per_pixel: int
    """The rays of a pixel lie side by side."""


def backdrop_colour(
    backdrop: Float[Tensor, "scene 1 5 3"], directions: Float[Tensor, "scene ray 3"]
) -> Float[Tensor, "scene ray 3"]:
    """Colour of the surroundings along unit directions."""
    zenith, horizon, ground, extra, _ = backdrop.unbind(-2)
    up = directions[..., 2]
    rise = up.clamp(0, 1).sqrt()[..., None]
    sky = horizon + rise * (zenith - horizon)
    plane = directions[..., :2] / (up.abs() + 0.12)[..., None]
    place = torch.cat([1.3 * plane, torch.zeros_like(up)[..., None]], -1)
    cloud, _ = octaves(place, torch.full_like(up, 7, dtype=torch.int32), 0.0 * up)
    cover = (extra[..., 0] * (cloud * 1.5 + 0.2).clamp(0, 1) * up.clamp(0, 0.3) / 0.3)[..., None]
    sky = sky + cover * (1.15 * horizon.amax(-1, keepdim=True) - sky)
    blend = (up * 12 + 0.5).clamp(0, 1)[..., None]
    return ground + blend * (sky - ground)


def shade(
    scene: SceneTables,
    hits: Hits,
    directions: Float[Tensor, "scene ray 3"],
    pixel_angle: Float[Tensor, "scene 1"],
    samples: LightSamples,
    shadow_steps: int,
    photos: Float[Tensor, "photo texel 3"] | None = None,
) -> Float[Tensor, "scene ray 3"]:
    """Return the light that comes back along each ray, linear."""
    speed = directions.norm(dim=-1)
    viewdirs = directions / speed[..., None]
    frame = pick(scene.slot_frame.flatten(2), hits.slot).unflatten(-1, (3, 4))
    solid = dot(frame[..., :3], hits.points[..., None, :]) + frame[..., 3]
    inner_normal = dot(frame[..., :3], hits.normals[..., None, :])
    number = torch.gather(scene.slot_material, 1, hits.slot)
    material = pick(scene.materials, number.clamp_min(0))
    wrap = torch.gather(scene.slot_wrap, 1, hits.slot)
    slanted = -dot(viewdirs, hits.normals)
    footprint = hits.t * speed * pixel_angle / slanted.clamp_min(0.15).sqrt()
    colour = surface_colour(solid, inner_normal, wrap, footprint, material, photos)
    slope = (colour.slope[..., None] * frame[..., :3]).sum(-2)
    slope = slope - dot(slope, hits.normals)[..., None] * hits.normals
    normals = torch.nn.functional.normalize(hits.normals - slope, dim=-1)
    diffuse, shine = _direct_light(scene, hits, normals, viewdirs, material, samples, shadow_steps)
    diffuse = diffuse + _ambient_light(scene, hits, normals)
    mirrored = viewdirs - 2 * dot(viewdirs, normals)[..., None] * normals
    reflection = material[..., COLUMN["reflection"], None]
    grazing = (1 - slanted.clamp(0, 1))[..., None] ** 5
    share = reflection + (reflection > 0) * 0.4 * (1 - reflection) * grazing
    around = scene.backdrop[:, None]
    surroundings = backdrop_colour(around, mirrored) + around[..., 4, :] * 0.3
    # Metals tint what they mirror, everything else does not.
    tint = torch.where(reflection > 0.15, colour.albedo, 1.0)
    light = colour.albedo * (diffuse + material[..., COLUMN["emission"], None]) * (1 - share)
    light = light + share * tint * surroundings + shine * torch.where(reflection > 0.15, tint, 1.0)
    background = backdrop_colour(around, viewdirs)
    haze = 1 - torch.exp(-around[..., 3, 1] * hits.t * speed)
    light = light + haze[..., None] * (around[..., 1, :] - light)
    return torch.where((number >= 0)[..., None], light, background)


def _direct_light(
    scene: SceneTables,
    hits: Hits,
    normals: Float[Tensor, "scene ray 3"],
    viewdirs: Float[Tensor, "scene ray 3"],
    material: Float[Tensor, "scene ray value"],
    samples: LightSamples,
    shadow_steps: int,
) -> tuple[Float[Tensor, "scene ray 3"], Float[Tensor, "scene ray 3"]]:
    """Diffuse light and highlights (Blinn and Phong, normalised) of the lamps."""
    diffuse, shine = torch.zeros_like(normals), torch.zeros_like(normals)
    sharpness = material[..., COLUMN["sharpness"]].clamp_min(1)
    gloss = 0.04 * material[..., COLUMN["gloss"]] * (sharpness + 8) / 8
    first_card = scene.convex_affine.shape[1]
    on_card = (hits.slot >= first_card) & (hits.slot < first_card + scene.card_affine.shape[1])
    lit = _Lit(normals, hits.normals, hits.points, viewdirs, sharpness, gloss, on_card)
    for number, lamp in enumerate(samples.lights.unbind(1)):
        received, highlight = _received(lit, lamp[:, None])
        if number < SHADOW_LIGHTS:
            test = _lamp_seen if number == 0 else _lamp_seen_by_pixel
            seen = test(scene, hits, lamp, samples, shadow_steps, received)
            received, highlight = received * seen, highlight * seen
        diffuse = diffuse + lamp[:, None, 4:7] * received[..., None]
        shine = shine + lamp[:, None, 4:7] * highlight[..., None]
    return diffuse, shine


@dataclass(frozen=True)
class _Lit:
    """What lamps shine on."""

    normals: Float[Tensor, "scene ray 3"]
    """With the relief."""
    smooth: Float[Tensor, "scene ray 3"]
    """Without it."""
    points: Float[Tensor, "scene ray 3"]
    viewdirs: Float[Tensor, "scene ray 3"]
    sharpness: Float[Tensor, "scene ray"]
    gloss: Float[Tensor, "scene ray"]
    on_card: Bool[Tensor, "scene ray"]


def _received(
    lit: _Lit, lamp: Float[Tensor, "scene 1 8"]
) -> tuple[Float[Tensor, "scene ray"], Float[Tensor, "scene ray"]]:
    """Share of a lamp's colour that comes back diffuse and as highlight, shadows left out."""
    to_light = lamp[..., :3] - lit.points
    gap = to_light.norm(dim=-1).clamp_min(1e-3)
    unit = to_light / gap[..., None]
    falloff = (lamp[..., 7] / gap.square()).clamp_max(4)
    facing = dot(lit.normals, unit)
    outside = dot(lit.smooth, unit) > 0
    # Thin sheets let a third of the light through.
    received = torch.where(
        lit.on_card & (facing < 0), -0.35 * facing, facing.clamp_min(0) * (outside | lit.on_card)
    )
    half = torch.nn.functional.normalize(unit - lit.viewdirs, dim=-1)
    highlight = lit.gloss * dot(lit.normals, half).clamp_min(0) ** lit.sharpness * (received > 0)
    return received * falloff, highlight * falloff


def _lamp_seen_by_pixel(
    scene: SceneTables,
    hits: Hits,
    lamp: Float[Tensor, "scene 8"],
    samples: LightSamples,
    shadow_steps: int,
    received: Float[Tensor, "scene ray"],
) -> Float[Tensor, "scene ray"]:
    """Share of a lamp that each pixel sees, tested by the first half of its rays."""
    count = samples.per_pixel
    tested = (count + 1) // 2

    def some(values: Tensor) -> Tensor:
        return values.unflatten(1, (-1, count))[:, :, :tested].flatten(1, 2)

    few = Hits(some(hits.t), some(hits.slot), some(hits.points), some(hits.normals))
    few_samples = LightSamples(
        samples.lights, some(samples.angle), some(samples.radius), samples.per_pixel
    )
    seen = _lamp_seen(scene, few, lamp, few_samples, shadow_steps, some(received))
    return seen.unflatten(1, (-1, tested)).mean(2).repeat_interleave(count, 1)


def _lamp_seen(
    scene: SceneTables,
    hits: Hits,
    lamp: Float[Tensor, "scene 8"],
    samples: LightSamples,
    shadow_steps: int,
    received: Float[Tensor, "scene ray"],
) -> Float[Tensor, "scene ray"]:
    """Share of one lamp that each hit sees: one ray to a point of its disc."""
    center, radius = lamp[:, None, :3], lamp[:, 3:4]
    side = torch.stack([samples.angle.cos(), samples.angle.sin(), 0 * samples.angle], -1)
    target = center + (radius * samples.radius)[..., None] * side
    lift = 2e-3 * (1 + 0.2 * hits.t)
    facing = dot(hits.normals, center - hits.points)
    # A sheet that is lit from behind is left on the lamp's side.
    start = hits.points + (lift * torch.where(facing < 0, -1.0, 1.0))[..., None] * hits.normals
    to_light = target - start
    softness = (1.2 * radius / to_light.norm(dim=-1)).clamp(0.01, 0.5)
    if not one_by_one(start):
        return visibility(scene, start, to_light, lamp[:, :4], softness, shadow_steps)
    number = torch.gather(scene.slot_material, 1, hits.slot)
    shines = bool(lamp[0, 4:7].max() > 1e-3)
    lit = ((received > 1e-4) & (number >= 0) & shines)[0].nonzero()[:, 0]
    seen = torch.ones_like(softness)
    if len(lit):
        seen[:, lit] = visibility(
            scene, start[:, lit], to_light[:, lit], lamp[:, :4], softness[:, lit], shadow_steps
        )
    return seen


def _ambient_light(
    scene: SceneTables, hits: Hits, normals: Float[Tensor, "scene ray 3"]
) -> Float[Tensor, "scene ray 3"]:
    """Light from all around, less near other surfaces."""
    ambient = scene.backdrop[:, None, 4]
    upward = 0.5 + 0.5 * normals[..., 2:]
    bounced = torch.where(scene.backdrop[:, None, 2] > 0, 0.65, 0.45)
    light = ambient * (bounced + (1 - bounced) * upward)
    return light * openness(scene, hits)[..., None]


def lamp_disc(
    pixel_hash: Float[Tensor, "scene pixel"], count: int, sample: int
) -> tuple[Float[Tensor, "scene pixel"], Float[Tensor, "scene pixel"]]:
    """Spread the samples of a pixel over a lamp's disc, turned by the pixel's hash."""
    angle = 2 * math.pi * (pixel_hash + sample / count)
    # Alternate rings, so that the samples of a pixel cover the disc.
    ring = (0.5 + (sample * 3) % count) / count
    return angle, torch.full_like(angle, math.sqrt(ring))
