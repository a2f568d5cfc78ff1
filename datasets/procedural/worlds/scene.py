"""A world as a list of surfaces, while it is being built, and as tensors afterwards."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from datasets.procedural.renderer.materials import MATERIAL_VALUES, Material
from datasets.procedural.renderer.scene_tensors import SHELL_FACES, SceneTensors

Vector = Sequence[float] | np.ndarray

QUADRICS: dict[str, tuple[float, float, float, float, float]] = {
    "box": (0.0, 0.0, 0.0, 0.0, -1e6),
    "cylinder": (1.0, 1.0, 0.0, 0.0, -1.0),
    "ellipsoid": (1.0, 1.0, 1.0, 0.0, -1.0),
    "cone": (1.0, 1.0, -0.25, 0.5, -0.25),
    "dome": (1.0, 1.0, 0.25, 0.5, -0.75),
    "bowl": (1.0, 1.0, 0.25, -0.5, -0.75),
    "paraboloid": (1.0, 1.0, 0.0, 0.5, -0.5),
    "gable": (1.0, 0.0, -0.25, 0.5, -0.25),
    "vault": (1.0, 0.0, 0.25, 0.5, -0.75),
}
"""Convex shapes: ``ax x^2 + ay y^2 + az z^2 + b z + c <= 0`` inside the cube of half-side 1."""
NO_SURFACE = -1
_WAVES = 6


def frustum(taper: float) -> tuple[float, float, float, float, float]:
    """Return the quadric of a cut cone whose top is ``taper`` times as wide as its bottom.

    The wider end has radius 1.
    """
    narrow = min(taper, 1 / taper, 0.999)
    middle, slope = (1 + narrow) / 2, (narrow - 1) / 2
    upwards = 1 if taper < 1 else -1
    return (1.0, 1.0, -(slope**2), -2 * middle * slope * upwards, -(middle**2))


def turned(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Float[np.ndarray, "3 3"]:
    """Roll about x, then pitch about y, then yaw about z (the vertical)."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    cr, sr = math.cos(roll), math.sin(roll)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


@dataclass(frozen=True)
class Frame:
    """A place in the world, whose z axis points up: objects are built in its coordinates."""

    origin: Float[np.ndarray, 3] = field(default_factory=lambda: np.zeros(3))
    rotation: Float[np.ndarray, "3 3"] = field(default_factory=lambda: np.eye(3))
    scale: float = 1.0

    def moved(
        self, point: Vector = (0, 0, 0), turn: Sequence[float] = (), scale: float = 1.0
    ) -> Frame:
        """Return the frame at a point of this one, turned and scaled further."""
        origin = self.origin + self.scale * (self.rotation @ np.asarray(point, float))
        rotation = self.rotation @ turned(*turn) if turn else self.rotation
        return Frame(origin, rotation, self.scale * scale)

    def inverse(self) -> Float[np.ndarray, "3 4"]:
        """Return the rigid map from the world into this frame."""
        return np.column_stack([self.rotation.T, -self.rotation.T @ self.origin])


@dataclass(frozen=True)
class Surface:
    """One convex shape, card or blob, as the renderer takes it."""

    affine: Float[np.ndarray, "3 4"]
    shape: Sequence[float]
    sphere: Sequence[float]
    shade: float
    frame: Float[np.ndarray, "3 4"]
    material: int
    object_id: int
    wrap: float


@dataclass(frozen=True)
class Lamp:
    """A lamp (or the sun, far away). Its colour is what white receives at the scene's centre."""

    position: Vector
    radius: float
    colour: Vector


@dataclass
class SceneBuilder:
    """Collects the surfaces of one world."""

    limits: tuple[int, int, int] = (96, 48, 14)
    """Slots for convex shapes, cards and blobs: what does not fit is left away."""
    max_materials: int = 48
    surfaces: tuple[list[Surface], list[Surface], list[Surface]] = field(
        default_factory=lambda: ([], [], [])
    )
    materials: list[Material] = field(default_factory=list)
    blend: float = 0.02
    waves: list[list[float]] = field(default_factory=list)
    relief_level: float = 0.0
    relief_material: int = NO_SURFACE
    shell_box: tuple[Vector, Vector] = ((-30.0, -30.0, 0.0), (30.0, 30.0, 30.0))
    shell_materials: list[int] = field(default_factory=lambda: [NO_SURFACE] * SHELL_FACES)
    """Faces -x, -y, -z (the floor), +x, +y, +z (the ceiling)."""
    lamps: list[Lamp] = field(default_factory=list)
    backdrop: list[Vector] = field(default_factory=lambda: [(0.0, 0.0, 0.0)] * 4 + [(0.3,) * 3])
    """Zenith, horizon, ground, (clouds, haze, 0), ambient light."""
    object_id: int = SHELL_FACES + 1
    """Id of the next surfaces; 0 is nothing, 1 to 6 the shell, 7 the height field."""

    def room_left(self, convex: int = 0, cards: int = 0, blobs: int = 0) -> bool:
        """Tell whether that many more surfaces fit."""
        wanted = zip(self.surfaces, (convex, cards, blobs), self.limits, strict=True)
        return all(len(rows) + more <= limit for rows, more, limit in wanted)

    def add_material(self, material: Material) -> int:
        """Enter a material; returns its number. When the table is full, an older one serves."""
        if len(self.materials) >= self.max_materials:
            return self.object_id % self.max_materials
        self.materials.append(material)
        return len(self.materials) - 1

    def add_convex(
        self, frame: Frame, quadric: Sequence[float], half: Vector, material: int
    ) -> None:
        """Add a convex shape around a frame's origin."""
        sides = np.maximum(np.asarray(half, float) * frame.scale, 1e-4)
        rounded = quadric[0] == 1.0 and quadric[1] == 1.0
        wrap = (sides[0] + sides[1]) / 2 if rounded and sides[2] > 0.3 * sides[0] else 0.0
        shade = min(sorted(sides)[1], 2.5 * min(sides))
        self._add(0, frame, sides, (quadric, np.linalg.norm(sides), shade, wrap), material)

    def add_card(self, frame: Frame, shape: Sequence[float], half: Vector, material: int) -> None:
        """Add a thin sheet along a frame's x and y axes; see ``hit_cards`` for shapes.

        ``shape[0:2]`` bend it: its height over the sheet's plane is ``bend * (local / half)^2``,
        in units of ``half[0]``.
        """
        sides = np.array([half[0], half[1], half[0]]) * frame.scale
        reach = math.hypot(sides[0], sides[1], sides[2] * (abs(shape[0]) + abs(shape[1])))
        self._add(1, frame, sides, (shape, reach, 0.0, 0.0), material)

    def add_blob(
        self, frame: Frame, core: Vector, radius: float, material: int, ring: float = 0.0
    ) -> None:
        """Add a rounded box, capsule, ball or ring that blends into its neighbours."""
        shape = np.array([*core, radius, ring]) * frame.scale
        reach = np.linalg.norm(shape[:3]) + shape[3] + shape[4]
        self._add(2, frame, np.ones(3), (shape, reach, 0.0, 0.0), material)

    def _add(
        self,
        kind: int,
        frame: Frame,
        sides: np.ndarray,
        row: tuple[Sequence[float] | np.ndarray, float, float, float],
        material: int,
    ) -> None:
        if len(self.surfaces[kind]) < self.limits[kind]:
            (shape, reach, shade, wrap), rigid = row, frame.inverse()
            sphere = [*frame.origin, reach]
            label = (material, self.object_id, wrap)
            affine = rigid / sides[:, None]
            self.surfaces[kind].append(Surface(affine, tuple(shape), sphere, shade, rigid, *label))


def _free_slot(values: int) -> Surface:
    """Return what fills a free slot: too far away to be met."""
    away, sphere = np.full((3, 4), [0, 0, 0, 1e3]), [0.0, 0.0, -1e3, 0.0]
    return Surface(away, [0.0] * values, sphere, 0.0, np.eye(3, 4), NO_SURFACE, 0, 0.0)


def stack_scenes(scenes: list[SceneBuilder]) -> SceneTensors:
    """Stack worlds into tensors on the CPU."""
    arrays = [_arrays(scene) for scene in scenes]
    stacked = {name: np.stack([array[name] for array in arrays]) for name in arrays[0]}
    for name, array in stacked.items():
        is_index = name in ("slot_material", "slot_object")
        stacked[name] = torch.from_numpy(array.astype(np.int64 if is_index else np.float32))
    return SceneTensors(**stacked)  # pyright: ignore[reportArgumentType]


def _padded(rows: Iterable[object], count: int, filler: object) -> np.ndarray:
    rows = list(rows)
    return np.asarray(rows + [filler] * (count - len(rows)), np.float64)


def _arrays(scene: SceneBuilder) -> dict[str, np.ndarray]:
    """Lay one world out as padded arrays, named as in ``SceneTensors``."""
    slots = [
        rows + [_free_slot(values)] * (limit - len(rows))
        for rows, values, limit in zip(scene.surfaces, (5, 9, 5), scene.limits, strict=True)
    ]
    arrays = {
        f"{kind}_{name}": np.asarray([getattr(row, name) for row in rows], np.float64)
        for kind, rows in zip(("convex", "card", "blob"), slots, strict=True)
        for name in ("affine", "shape", "sphere")
    }
    arrays["convex_quadric"] = arrays.pop("convex_shape")
    arrays["convex_shade"] = np.asarray([row.shade for row in slots[0]])
    del arrays["blob_sphere"]
    every = [row for rows in slots for row in rows]
    labels = [scene.relief_material, *scene.shell_materials]
    rest = [np.eye(3, 4)] * (1 + SHELL_FACES)
    steepness = sum(math.hypot(wave[0], wave[1]) * abs(wave[3]) for wave in scene.waves)
    level = scene.relief_level if scene.waves else -1e3
    return arrays | {
        "blob_blend": np.asarray(scene.blend),
        "traced_box": _traced_box(scene),
        "relief": _padded(scene.waves, _WAVES, [0.0] * 4),
        "relief_level": np.asarray([level, math.hypot(1.0, steepness)]),
        "shell_box": np.asarray(scene.shell_box),
        "slot_frame": np.asarray([row.frame for row in every] + rest),
        "slot_wrap": np.asarray([row.wrap for row in every] + [0.0] * len(rest)),
        "slot_material": np.asarray([row.material for row in every] + labels),
        "slot_object": np.asarray(
            [row.object_id for row in every] + [SHELL_FACES + 1, *range(1, SHELL_FACES + 1)]
        ),
        "materials": _padded(
            (material.row() for material in scene.materials),
            scene.max_materials,
            [0.0] * MATERIAL_VALUES,
        ),
        "backdrop": np.asarray(scene.backdrop),
    }


def _traced_box(scene: SceneBuilder) -> np.ndarray:
    """Bound the blobs and the height field."""
    low, high = np.full(3, 1e4), np.full(3, -1e4)
    for row in scene.surfaces[2]:
        center, reach = np.asarray(row.sphere[:3]), row.sphere[3] + 2 * scene.blend
        low, high = np.minimum(low, center - reach), np.maximum(high, center + reach)
    if scene.waves:
        swing = sum(abs(wave[3]) for wave in scene.waves) + 1e-3
        box = np.asarray(scene.shell_box)
        low = np.minimum(low, [*box[0, :2], scene.relief_level - swing])
        high = np.maximum(high, [*box[1, :2], scene.relief_level + swing])
    return np.stack([low, high])
