"""Shading: lamps with shadows and highlights, ambient light with occlusion, reflection, haze."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize, pad

from datasets.procedural.renderer import geometry
from datasets.procedural.renderer.geometry import Flags, Numbers, SceneTensors, Values, Vectors
from datasets.procedural.renderer.kernels import fused, slot_groups, where_needed
from datasets.procedural.renderer.patterns import octaves
from datasets.procedural.renderer.sphere_tracing import DistanceField
from datasets.procedural.renderer.textures import COLUMN, surface_colour
from datasets.procedural.renderer.tracing import Hits, lamp_visible

LAMPS = 3
"""Lamps of every scene; some may be dark."""
SHADOW_LAMPS = 2
"""Number of the first lamps, which cast shadows."""
_SHAPES_IN_KERNEL = 8
"""Convex shapes per kernel call on an accelerator."""
LampSamples = tuple[Float[Tensor, "scene lamp 8"], Float[Tensor, "scene ray 2"]]
"""Lamps of one view (position, radius, colour, squared distance at which the colour is measured),
and the sample of each ray on a lamp's unit disc."""


def lamp_disc(pixel_hash: Float[Tensor, "scene pixel"], count: int) -> Float[Tensor, "scene ray 2"]:
    """Spread the samples of a pixel over the unit disc, rotated by the pixel's hash."""
    sample = torch.arange(count, device=pixel_hash.device)
    angle = 2 * math.pi * (pixel_hash[..., None] + sample / count)
    # Consecutive samples alternate between rings, to cover the disc.
    ring = ((0.5 + (sample * 3) % count) / count).sqrt()
    return torch.stack([ring * angle.cos(), ring * angle.sin()], -1).flatten(1, 2)


class _Surface(NamedTuple):
    """Shading inputs at the hits; ``normals`` include the bump map."""

    hits: Hits
    normals: Vectors
    viewdirs: Vectors
    sharpness: Values
    gloss: Values
    solid: Flags
    on_card: Flags


def shade(
    scene: SceneTensors,
    hits: Hits,
    directions: Vectors,
    pixel_angle: Float[Tensor, "scene 1"],
    samples: LampSamples,
    photos: Float[Tensor, "photo texel 3"] | None = None,
) -> Vectors:
    """Return the linear radiance along each ray."""
    speed = directions.norm(dim=-1)
    viewdirs = directions / speed[..., None]
    frame = geometry.gather_rows(scene.slot_frame.flatten(2), hits.slot).unflatten(-1, (3, 4))
    local_points = geometry.dot(frame[..., :3], hits.points[..., None, :]) + frame[..., 3]
    local_normals = geometry.dot(frame[..., :3], hits.normals[..., None, :])
    number = torch.gather(scene.slot_material, 1, hits.slot)
    material = geometry.gather_rows(scene.materials, number.clamp_min(0))
    wrap = torch.gather(scene.slot_wrap, 1, hits.slot)
    cosine = -geometry.dot(viewdirs, hits.normals)
    footprint = hits.t * speed * pixel_angle / cosine.clamp_min(0.15).sqrt()
    albedo, bump = surface_colour(local_points, local_normals, wrap, footprint, material, photos)
    slope = (bump[..., None] * frame[..., :3]).sum(-2)
    slope = slope - geometry.dot(slope, hits.normals)[..., None] * hits.normals
    sharpness = material[..., COLUMN["sharpness"]].clamp_min(1)
    first_card, first_blob, _ = scene.slot_starts
    surface = _Surface(
        hits=hits,
        normals=normalize(hits.normals - slope, dim=-1),
        viewdirs=viewdirs,
        sharpness=sharpness,
        gloss=0.04 * material[..., COLUMN["gloss"]] * (sharpness + 8) / 8,
        solid=number >= 0,
        on_card=(hits.slot >= first_card) & (hits.slot < first_blob),
    )
    diffuse, specular = _direct_light(scene, surface, samples)
    diffuse = diffuse + _ambient_light(scene, surface)
    light = _with_reflection(scene, surface, material, albedo, diffuse, specular)
    around = scene.backdrop[:, None]
    haze = 1 - torch.exp(-around[..., 3, 1] * hits.t * speed)
    light = light + haze[..., None] * (around[..., 1, :] - light)
    return torch.where(surface.solid[..., None], light, backdrop_colour(around, viewdirs))


def _with_reflection(
    scene: SceneTensors,
    surface: _Surface,
    material: Float[Tensor, "scene ray value"],
    albedo: Vectors,
    diffuse: Vectors,
    specular: Vectors,
) -> Vectors:
    """Combine diffuse, specular and emitted light with the reflection of the backdrop."""
    cosine = -geometry.dot(surface.viewdirs, surface.normals)[..., None]
    mirrored = surface.viewdirs + 2 * cosine * surface.normals
    reflection = material[..., COLUMN["reflection"], None]
    negative_cosine = geometry.dot(surface.viewdirs, surface.hits.normals)[..., None].clamp(-1, 0)
    share = reflection + (reflection > 0) * 0.4 * (1 - reflection) * (1 + negative_cosine) ** 5
    around = scene.backdrop[:, None]
    mirror_image = backdrop_colour(around, mirrored) + around[..., 4, :] * 0.3
    # Only metals tint their reflections.
    tint = torch.where(reflection > 0.15, albedo, 1.0)
    light = albedo * (diffuse + material[..., COLUMN["emission"], None]) * (1 - share)
    return light + share * tint * mirror_image + specular * tint


def backdrop_colour(backdrop: Float[Tensor, "scene 1 5 3"], directions: Vectors) -> Vectors:
    """Return the radiance of the backdrop along unit directions."""
    zenith, horizon, ground, extra, _ = backdrop.unbind(-2)
    up = directions[..., 2]
    rise = up.clamp(0, 1).sqrt()[..., None]
    sky = horizon + rise * (zenith - horizon)
    plane = directions[..., :2] / (up.abs() + 0.12)[..., None]
    points = torch.cat([1.3 * plane, torch.zeros_like(up)[..., None]], -1)
    cloud, _ = octaves(points, torch.full_like(up, 7, dtype=torch.int32), 0.0 * up)
    cover = (extra[..., 0] * (cloud * 1.5 + 0.2).clamp(0, 1) * up.clamp(0, 0.3) / 0.3)[..., None]
    sky = sky + cover * (1.15 * horizon.amax(-1, keepdim=True) - sky)
    blend = (up * 12 + 0.5).clamp(0, 1)[..., None]
    return ground + blend * (sky - ground)


def _direct_light(
    scene: SceneTensors, surface: _Surface, samples: LampSamples
) -> tuple[Vectors, Vectors]:
    """Return the lamps' diffuse light and highlights (normalised Blinn-Phong)."""
    diffuse, specular = torch.zeros_like(surface.normals), torch.zeros_like(surface.normals)
    for number, lamp in enumerate(samples[0].unbind(1)):
        received, highlight = _received(surface, lamp[:, None])
        if number < SHADOW_LAMPS:
            needed = (received > 1e-4) & surface.solid & (lamp[:, None, 4:7].amax(-1) > 1e-3)
            visible = _lamp_visibility(scene, surface.hits, lamp, samples[1], needed)
            received, highlight = received * visible, highlight * visible
        diffuse = diffuse + lamp[:, None, 4:7] * received[..., None]
        specular = specular + lamp[:, None, 4:7] * highlight[..., None]
    return diffuse, specular


def _received(surface: _Surface, lamp: Float[Tensor, "scene 1 8"]) -> tuple[Values, Values]:
    """Return the factors of a lamp's colour in diffuse light and highlight, without shadows."""
    to_lamp = lamp[..., :3] - surface.hits.points
    gap = to_lamp.norm(dim=-1).clamp_min(1e-3)
    unit = to_lamp / gap[..., None]
    falloff = (lamp[..., 7] / gap.square()).clamp_max(4)
    facing = geometry.dot(surface.normals, unit)
    lit = (geometry.dot(surface.hits.normals, unit) > 0) | surface.on_card
    # Thin sheets transmit a third of the light.
    received = torch.where(
        surface.on_card & (facing < 0), -0.35 * facing, facing.clamp_min(0) * lit
    )
    half = geometry.dot(surface.normals, normalize(unit - surface.viewdirs, dim=-1)).clamp_min(0)
    highlight = surface.gloss * half**surface.sharpness * (received > 0)
    return received * falloff, highlight * falloff


def _lamp_visibility(
    scene: SceneTensors,
    hits: Hits,
    lamp: Float[Tensor, "scene 8"],
    disc: Float[Tensor, "scene ray 2"],
    needed: Flags,
) -> Values:
    """Trace one shadow ray to a sample of the lamp's disc from each hit that needs it."""
    center = lamp[:, None, :3]
    target = center + lamp[:, None, 3:4] * pad(disc, (0, 1))
    lift = 2e-3 * (1 + 0.2 * hits.t)
    # The ray of a sheet that is lit from behind starts on the lamp's side.
    lift = torch.where(geometry.dot(hits.normals, center - hits.points) < 0, -lift, lift)
    start = hits.points + lift[..., None] * hits.normals
    visible = partial(lamp_visible, scene, lamp[:, :4])
    return where_needed(needed, visible, (start, target - start), torch.ones_like(hits.t))


def _ambient_light(scene: SceneTensors, surface: _Surface) -> Vectors:
    """Return ambient light with ambient occlusion."""
    ambient, hits = scene.backdrop[:, None, 4], surface.hits
    upward = 0.5 + 0.5 * surface.normals[..., 2:]
    bounced = torch.where(scene.backdrop[:, None, 2] > 0, 0.65, 0.45)
    visible = _convex_visibility(scene, hits) * _blob_visibility(scene, hits)
    visible = visible * _shell_visibility(scene, hits)
    return ambient * (bounced + (1 - bounced) * upward) * visible[..., None]


def _convex_visibility(scene: SceneTensors, hits: Hits) -> Values:
    """Approximate the convex shapes by spheres."""
    scenes, shapes = scene.convex_shade.shape
    numbers = torch.arange(shapes, dtype=hits.points.dtype, device=hits.slot.device)
    spheres = torch.cat([scene.convex_sphere[..., :3], scene.convex_shade[..., None]], -1)
    table = torch.cat([spheres, numbers[None, :, None].expand(scenes, -1, -1)], -1)
    occlusion = torch.zeros_like(hits.t)
    for group in slot_groups(table, _SHAPES_IN_KERNEL, scene.convex_shade > 0):
        occlusion = _add_sphere_occlusion(group, hits.points, hits.normals, hits.slot, occlusion)
    return torch.exp(-1.1 * occlusion)


@fused
def _add_sphere_occlusion(
    spheres: Tensor, points: Vectors, normals: Vectors, slot: Numbers, occlusion: Values
) -> Values:
    """Add the occlusion by a group of spheres; their rows are centre, radius, slot."""
    offset = [spheres[..., axis] - points[..., None, axis] for axis in range(3)]
    squared = offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2 + 1e-6
    along = sum(value * normals[..., None, axis] for axis, value in enumerate(offset))
    other = spheres[..., 4] != slot[..., None]
    near = (spheres[..., 3] ** 2 / squared).clamp_max(0.6)
    return occlusion + ((along * squared.rsqrt()).clamp_min(0) * near * other).sum(-1)


def _blob_visibility(scene: SceneTensors, hits: Hits) -> Values:
    """Compare distances to the blobs with steps along the normal."""
    low, high = scene.blob_box[:, None].unbind(-2)
    near = ((hits.points > low - 0.2) & (hits.points < high + 0.2)).all(-1)

    def visibility(points: Vectors, normals: Vectors) -> Values:
        distance, occlusion = DistanceField(scene, points), torch.zeros_like(points[..., 0])
        for step, weight in ((0.05, 3.0), (0.16, 1.6)):
            gap = step - distance(points + step * normals)
            occlusion = occlusion + weight * gap.clamp_min(0)
        return (1 - occlusion).clamp(0.25, 1)

    return where_needed(near, visibility, (hits.points, hits.normals), torch.ones_like(hits.t))


def _shell_visibility(scene: SceneTensors, hits: Hits) -> Values:
    """Darken surfaces near the walls, floor and ceiling."""
    low, high = scene.shell_box[:, None].unbind(-2)
    solid = scene.slot_material[:, None, -6:] >= 0
    gaps = torch.cat([hits.points - low, high - hits.points], -1).clamp_min(0)
    lean = torch.cat([1 - hits.normals, 1 + hits.normals], -1).clamp(0, 1)
    occlusion = 0.45 * torch.exp(-gaps / 0.25) * lean * solid
    return (1 - occlusion).prod(-1)
