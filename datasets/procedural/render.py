"""From worlds and cameras to images: rays in chunks, colour, depth and ids of every pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.procedural.materials import COLUMN
from datasets.procedural.noise import hashed
from datasets.procedural.shading import LightSamples, lamp_disc, shade
from datasets.procedural.tables import SceneTables
from datasets.procedural.tracing import nearest_surface, trace
from utils.cameras import Cameras, pixel_directions, rotate

_TILE = 32
"""Side of the tiles in whose order pixels are rendered on the CPU: neighbours see alike."""
_PIXELS_ON_CPU = 20480
"""Pixels that are rendered at once on the CPU."""


@dataclass(frozen=True)
class Quality:
    """How carefully to render."""

    samples: int
    march_steps: int
    shadow_steps: int
    rays_per_chunk: int


@dataclass(frozen=True)
class Rendering:
    """What a camera sees, before it is made a photograph of."""

    light: Float[Tensor, "*image pixel 3"]
    """Linear."""
    depth: Float[Tensor, "*image pixel"]
    """z-depth along the ray through the pixel's centre; 0 where there is no surface."""
    object_id: Int[Tensor, "*image pixel"]
    plain: Float[Tensor, "*image pixel"]
    """1 where the surface has no pattern and next to no variation."""


def sample_offsets(
    pixel_hash: Float[Tensor, "scene pixel"], count: int
) -> Iterator[tuple[Float[Tensor, "scene pixel"], Float[Tensor, "scene pixel"]]]:
    """Offsets from a pixel's centre: the centre itself, then a ring that turns with the hash."""
    yield torch.zeros_like(pixel_hash), torch.zeros_like(pixel_hash)
    for sample in range(count - 1):
        angle = 2 * math.pi * (sample / (count - 1) + pixel_hash)
        yield 0.42 * angle.cos(), 0.42 * angle.sin()


def render_pixels(
    scene: SceneTables,
    cameras: Cameras,
    lights: Float[Tensor, "scene light 8"],
    seeds: Int[Tensor, " scene"],
    pixels: Float[Tensor, "pixel 2"],
    quality: Quality,
    photos: Float[Tensor, "photo texel 3"] | None = None,
) -> Rendering:
    """Render one view of each scene at pixel centres."""
    column, row = pixels.to(torch.int32).unbind(-1)
    pixel_hash = hashed(column[None], row[None], seeds[:, None])
    where = torch.stack(
        [
            torch.stack([pixels[:, 0] + x, pixels[:, 1] + y], -1)
            for x, y in sample_offsets(pixel_hash, quality.samples)
        ],
        2,
    ).flatten(1, 2)
    directions = rotate(pixel_directions(where, cameras.intrinsics), cameras)
    origins = cameras.centers[:, None].expand_as(directions)
    hits = trace(scene, origins, directions, quality.march_steps)
    disc = [lamp_disc(pixel_hash, quality.samples, index) for index in range(quality.samples)]
    samples = LightSamples(
        lights,
        torch.stack([angle for angle, _ in disc], -1).flatten(1),
        torch.stack([ring for _, ring in disc], -1).flatten(1),
        quality.samples,
    )
    pixel_angle = 1 / cameras.intrinsics[:, :1, 0]
    light = shade(scene, hits, directions, pixel_angle, samples, quality.shadow_steps, photos)
    light = light.clamp(0, 4).unflatten(1, (-1, quality.samples)).mean(2)
    first = slice(None, None, quality.samples)
    return _with_first_sample(scene, light, hits.t[:, first], hits.slot[:, first])


def _with_first_sample(
    scene: SceneTables,
    light: Float[Tensor, "scene pixel 3"],
    t: Float[Tensor, "scene pixel"],
    slot: Int[Tensor, "scene pixel"],
) -> Rendering:
    """Add what is known of the centre ray: camera directions have z = 1, so t is the z-depth."""
    number = torch.gather(scene.slot_material, 1, slot)
    solid = number >= 0
    rows = torch.gather(
        scene.materials, 1, number.clamp_min(0)[..., None].expand(-1, -1, len(COLUMN))
    )
    plain = solid & (rows[..., COLUMN["pattern"]] == 0) & (rows[..., COLUMN["noise"]] < 0.1)
    return Rendering(
        light,
        torch.where(solid, t, 0.0),
        torch.where(solid, torch.gather(scene.slot_object, 1, slot), 0),
        plain.float(),
    )


def depth_along(
    scene: SceneTables,
    cameras: Cameras,
    pixels: Float[Tensor, "scene pixel 2"],
    march_steps: int,
) -> Float[Tensor, "scene pixel"]:
    """Return the exact z-depth at any pixel position; 0 where there is no surface."""
    directions = rotate(pixel_directions(pixels, cameras.intrinsics), cameras)
    origins = cameras.centers[:, None].expand_as(directions)
    t, slot = nearest_surface(scene, origins, directions, march_steps)
    return torch.where(torch.gather(scene.slot_material, 1, slot) >= 0, t, 0.0)


def pixel_chunks(
    size: tuple[int, int], scenes: int, quality: Quality, device: torch.device
) -> list[Float[Tensor, "_pixel 2"]]:
    """Cut an image into bundles of pixel centres: tile by tile on the CPU, elsewhere in bands."""
    height, width = size
    row, column = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    centers = torch.stack([column, row], -1).float() + 0.5
    if device.type == "cpu":
        tiles = [
            tile.reshape(-1, 2) for band in centers.split(_TILE, 0) for tile in band.split(_TILE, 1)
        ]
        return list(torch.cat(tiles).split(_PIXELS_ON_CPU))
    wanted = math.ceil(scenes * quality.samples * height * width / quality.rays_per_chunk)
    # Bands of one height only: a compiled renderer would have to be made anew for another.
    bands = next(count for count in range(min(wanted, height), height + 1) if height % count == 0)
    return [band.reshape(-1, 2) for band in centers.split(height // bands, 0)]


def one_scene(scenes: SceneTables, index: int) -> SceneTables:
    """Take one scene out of a batch on the CPU, without its free slots."""
    scene = replace(
        scenes, **{f.name: getattr(scenes, f.name)[index : index + 1] for f in fields(scenes)}
    )
    # At least one slot of each kind stays, so that look-ups need no special case.
    used = [
        max(1, int(count))
        for count in (
            (scene.convex_sphere[0, :, 3] > 0).sum(),
            (scene.card_sphere[0, :, 3] > 0).sum(),
            (scene.blob_shape[0, :, 3] > 0).sum(),
        )
    ]
    kept = {
        f.name: getattr(scene, f.name)[:, : used[("convex", "card", "blob").index(prefix)]]
        for f in fields(scene)
        if (prefix := f.name.split("_")[0]) in ("convex", "card", "blob") and f.name != "blob_blend"
    }
    slots = [scene.convex_affine.shape[1], scene.card_affine.shape[1], scene.blob_affine.shape[1]]
    keep = torch.cat(
        [
            torch.arange(count) + sum(slots[:kind])
            for kind, count in enumerate([*used, scene.slot_wrap.shape[1] - sum(slots)])
        ]
    )
    kept |= {
        f.name: getattr(scene, f.name)[:, keep] for f in fields(scene) if f.name[:5] == "slot_"
    }
    waves = int((scene.relief[0, :, 3] != 0).sum())
    return replace(scene, relief=scene.relief[:, :waves], **kept)
