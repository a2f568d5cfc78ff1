"""The tables that the renderer reads: worlds as padded tensors.

Every surface fills a slot. Slots are numbered through: convex bodies, cards, parts of blended
bodies, the height field, the six faces of the shell (the box that is floor, walls and ceiling).
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.procedural.dice import Number
from datasets.procedural.materials import Material
from datasets.procedural.scene import NO_SURFACE, SHELL_FACES, SceneBuilder

RELIEF_WAVES = 6


@dataclass(frozen=True)
class SceneTables:
    """Worlds as padded tables, ready for the device."""

    convex_affine: Float[Tensor, "scene convex 3 4"]
    """World to the body's unit cube."""
    convex_quadric: Float[Tensor, "scene convex 5"]
    convex_sphere: Float[Tensor, "scene convex 4"]
    """Centre and radius of a sphere around the body; radius 0 for a free slot."""
    convex_shade: Float[Tensor, "scene convex"]
    """Radius of the sphere that stands for the body when it takes light away from others."""
    card_affine: Float[Tensor, "scene card 3 4"]
    card_shape: Float[Tensor, "scene card 9"]
    card_sphere: Float[Tensor, "scene card 4"]
    blob_affine: Float[Tensor, "scene blob 3 4"]
    """World to the part's own frame: rigid, so that distances stay."""
    blob_shape: Float[Tensor, "scene blob 5"]
    """Half sides of the core box, rounding radius, ring radius (0 if it is no ring)."""
    blob_blend: Float[Tensor, " scene"]
    """Width over which parts melt into one another."""
    marched_box: Float[Tensor, "scene 2 3"]
    """Bounds of everything that is sphere-traced."""
    relief: Float[Tensor, "scene wave 4"]
    """Height field: wave vectors, phases, amplitudes."""
    relief_level: Float[Tensor, "scene 2"]
    """Mean height, and steepness (the Lipschitz bound of the height field)."""
    shell_box: Float[Tensor, "scene 2 3"]
    slot_frame: Float[Tensor, "scene slot 3 4"]
    """World to the coordinates in which a surface's texture lives: rigid."""
    slot_wrap: Float[Tensor, "scene slot"]
    """Radius about which a texture is rolled; 0 for flat mapping."""
    slot_material: Int[Tensor, "scene slot"]
    slot_object: Int[Tensor, "scene slot"]
    materials: Float[Tensor, "scene material value"]
    backdrop: Float[Tensor, "scene 5 3"]
    """Zenith, horizon, ground, (clouds, haze, 0), ambient light."""

    def to(self, device: torch.device) -> SceneTables:
        """Return the tables on another device."""
        moved = {name: value.to(device, non_blocking=True) for name, value in vars(self).items()}
        return replace(self, **moved)


def _padded(rows: list[list[Number]], slots: int, filler: list[Number]) -> np.ndarray:
    table = np.tile(np.asarray(filler, np.float32), (slots, 1))
    if rows:
        table[: len(rows)] = rows
    return table


_FAR_AFFINE = [0.0, 0.0, 0.0, 10.0] * 3
_IDENTITY = [1.0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 1.0, 0]


def scene_arrays(scene: SceneBuilder) -> dict[str, np.ndarray]:
    """Lay one world out as padded tables, named as in ``SceneTables``."""
    convex, cards, blobs = scene.limits
    waves = scene.relief_waves
    steepness = sum(math.hypot(wave[0], wave[1]) * abs(wave[3]) for wave in waves)
    level = scene.relief_level if waves else -1e3
    values = [list(astuple(material)) for material in scene.materials]
    backdrop = scene.backdrop
    return {
        "convex_affine": _padded([r[0] for r in scene.convex], convex, _FAR_AFFINE),
        "convex_quadric": _padded([r[1] for r in scene.convex], convex, [0, 0, 0, 0, -1.0]),
        "convex_sphere": _padded([r[2] for r in scene.convex], convex, [0, 0, -1e3, 0]),
        "convex_shade": _padded([r[3] for r in scene.convex], convex, [0.0])[:, 0],
        "card_affine": _padded([r[0] for r in scene.cards], cards, _FAR_AFFINE),
        "card_shape": _padded([r[1] for r in scene.cards], cards, [0.0] * 9),
        "card_sphere": _padded([r[2] for r in scene.cards], cards, [0, 0, -1e3, 0]),
        "blob_affine": _padded([r[0] for r in scene.blobs], blobs, [0, 0, 0, 1e3] * 3),
        "blob_shape": _padded([r[1] for r in scene.blobs], blobs, [0.0] * 5),
        "blob_blend": np.asarray(scene.blend, np.float32),
        "marched_box": _marched_box(scene),
        "relief": _padded(waves, RELIEF_WAVES, [0.0] * 4),
        "relief_level": np.asarray([level, math.hypot(1.0, steepness)], np.float32),
        "shell_box": np.asarray(scene.shell_box, np.float32),
        "materials": _padded(values, scene.max_materials, [0.0] * len(astuple(Material()))),
        "backdrop": np.asarray(
            [
                backdrop.zenith,
                backdrop.horizon,
                backdrop.ground,
                (backdrop.clouds, backdrop.haze, 0.0),
                backdrop.ambient,
            ],
            np.float32,
        ),
        **_slots(scene),
    }


def _marched_box(scene: SceneBuilder) -> np.ndarray:
    """Bound the blended bodies and the height field."""
    low, high = np.full(3, 1e4), np.full(3, -1e4)
    for row in scene.blobs:
        center, reach = np.asarray(row[2][:3]), row[2][3] + 2 * scene.blend
        low, high = np.minimum(low, center - reach), np.maximum(high, center + reach)
    if scene.relief_waves:
        swing = sum(abs(wave[3]) for wave in scene.relief_waves) + 1e-3
        box = np.asarray(scene.shell_box)
        low = np.minimum(low, [*box[0, :2], scene.relief_level - swing])
        high = np.maximum(high, [*box[1, :2], scene.relief_level + swing])
    return np.stack([low, high]).astype(np.float32)


def _slots(scene: SceneBuilder) -> dict[str, np.ndarray]:
    frames, wraps, materials, objects = [], [], [], []
    groups = zip(("convex", "cards", "blobs"), scene.limits, strict=True)
    for name, slots in groups:
        rows, labels = getattr(scene, name), scene.labels[name]
        frames.append(_padded([row[4] for row in rows], slots, _IDENTITY))
        table = _padded([list(label) for label in labels], slots, [NO_SURFACE, 0, 0])
        materials.append(table[:, 0])
        objects.append(table[:, 1])
        wraps.append(table[:, 2])
    frames.append(np.tile(np.asarray(_IDENTITY, np.float32), (1 + SHELL_FACES, 1)))
    wraps.append(np.zeros(1 + SHELL_FACES, np.float32))
    materials.append(np.asarray([scene.relief_material, *scene.shell_materials], np.float32))
    objects.append(np.asarray([SHELL_FACES + 1, *range(1, SHELL_FACES + 1)], np.float32))
    return {
        "slot_frame": np.concatenate(frames),
        "slot_wrap": np.concatenate(wraps),
        "slot_material": np.concatenate(materials).astype(np.int64),
        "slot_object": np.concatenate(objects).astype(np.int64),
    }


def stack_scenes(scenes: list[SceneBuilder]) -> SceneTables:
    """Stack worlds into tables on the CPU."""
    arrays = [scene_arrays(scene) for scene in scenes]
    tables = {
        name: torch.from_numpy(np.stack([array[name] for array in arrays])) for name in arrays[0]
    }
    for name in ("convex_affine", "card_affine", "blob_affine", "slot_frame"):
        tables[name] = tables[name].unflatten(-1, (3, 4))
    return SceneTables(**tables)
