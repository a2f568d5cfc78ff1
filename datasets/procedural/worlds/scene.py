"""Random choices, and a world as a list of surfaces while it is built, as tensors afterwards."""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from datasets.procedural.renderer.geometry import SHELL_FACES, SceneTensors
from datasets.procedural.renderer.textures import MATERIAL_VALUES, Colour, Material, Number


class Rng:
    """A stream of random choices. Equal keys give equal streams, on any machine.

    Only ``random.Random.random`` is used: Python guarantees its sequence across versions.
    """

    def __init__(self, *key: int | str) -> None:
        self._key = key
        self._random = random.Random("/".join(map(str, key))).random

    def child(self, *key: int | str) -> Rng:
        """Return an unrelated stream that does not depend on what was drawn from this one."""
        return Rng(*self._key, *key)

    def uniform(self, low: Number, high: Number) -> float:
        """Draw a number between two bounds."""
        return low + (high - low) * self._random()

    def log_uniform(self, low: Number, high: Number) -> float:
        """Draw a positive number whose logarithm is uniform."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def normal(self, spread: Number) -> float:
        """Draw from a normal distribution around 0."""
        radius = math.sqrt(-2 * math.log(1 - self._random()))
        return spread * radius * math.cos(2 * math.pi * self._random())

    def integer(self, low: int, high: int) -> int:
        """Draw an integer; both bounds are included."""
        return low + int(self._random() * (high - low + 1))

    def chance(self, probability: Number) -> bool:
        """Return true with a probability."""
        return self._random() < probability

    def pick(self, *options: Any) -> Any:  # noqa: ANN401
        """Pick one of several options; a single one is a sequence, or words of a text."""
        several = options[0] if len(options) == 1 else options
        several = several.split() if isinstance(several, str) else several
        return several[int(self._random() * len(several))]

    def weighted(self, options: list[tuple[Number, str]]) -> str:
        """Pick one of several (weight, option) pairs."""
        mark = self._random() * sum(weight for weight, _ in options)
        for weight, option in options:
            mark -= weight
            if mark < 0:
                return option
        return options[-1][1]

    def colour(self) -> Colour:
        """Draw a screen colour: mostly muted, now and then vivid."""
        saturation = self.uniform(0.5, 0.9) if self.chance(0.22) else self.uniform(0.0, 0.5)
        return colorsys.hsv_to_rgb(self.uniform(0, 1), saturation, self.uniform(0.15, 0.95))

    def shifted(self, colour: Colour, amount: Number = 0.06) -> Colour:
        """Vary a colour: its brightness more than its hue."""
        scale = 1 + self.uniform(-2.5 * amount, 2.5 * amount)
        red, green, blue = (
            min(max(channel * scale + self.uniform(-amount, amount) * 0.6, 0.02), 0.97)
            for channel in colour
        )
        return red, green, blue


Vector = Sequence[Number] | np.ndarray
Row = dict[str, Any]

QUADRICS: dict[str, tuple[Number, Number, Number, Number, Number]] = {
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
LIMITS = {"convex": 96, "card": 48, "blob": 14}
"""Slots of one scene."""
MAX_MATERIALS = 48
NO_SURFACE = -1
_AWAY, _IDENTITY = np.full((3, 4), [0, 0, 0, 1e3]), np.eye(3, 4)


def frustum(taper: Number) -> tuple[Number, Number, Number, Number, Number]:
    """Return the quadric of a cut cone whose top is ``taper`` times as wide as its bottom.

    The wider end has radius 1.
    """
    narrow = min(taper, 1 / taper, 0.999)
    middle, slope = (1 + narrow) / 2, (narrow - 1) / 2
    upwards = 1 if taper < 1 else -1
    return (1.0, 1.0, -(slope**2), -2 * middle * slope * upwards, -(middle**2))


def turned(yaw: Number = 0.0, pitch: Number = 0.0, roll: Number = 0.0) -> Float[np.ndarray, "3 3"]:
    """Roll about x, then pitch about y, then yaw about z (the vertical)."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    level = np.array([[cy, -sy, 0.0], [sy, cy, 0.0], [0.0, 0.0, 1.0]])
    tilt = np.array([[cp, sp * sr, sp * cr], [0.0, cr, -sr], [-sp, cp * sr, cp * cr]])
    return level @ tilt


@dataclass(frozen=True)
class Frame:
    """A place in the world, whose z axis points up: objects are built in its coordinates."""

    origin: Float[np.ndarray, 3] = field(default_factory=lambda: np.zeros(3))
    rotation: Float[np.ndarray, "3 3"] = field(default_factory=lambda: np.eye(3))
    scale: Number = 1.0

    def moved(
        self, point: Vector = (0, 0, 0), turn: Sequence[Number] = (), scale: Number = 1.0
    ) -> Frame:
        """Return the frame at a point of this one, turned and scaled further."""
        origin = self.origin + self.scale * (self.rotation @ np.array(point))
        rotation = self.rotation @ turned(*turn) if turn else self.rotation
        return Frame(origin, rotation, self.scale * scale)

    def inverse(self) -> Float[np.ndarray, "3 4"]:
        """Return the rigid map from the world into this frame."""
        return np.column_stack([self.rotation.T, -self.rotation.T @ self.origin])


@dataclass(frozen=True)
class Lamp:
    """A lamp (or the sun, far away). Its colour is what white receives at the scene's centre."""

    position: Vector
    radius: Number
    colour: Vector


def _row(
    shape: Vector = (),
    affine: np.ndarray = _AWAY,
    frame: np.ndarray = _IDENTITY,
    sphere: Vector = (0.0, 0.0, -1e3, 0.0),
    shade: Number = 0.0,
    **label: Number,
) -> Row:
    """Return one surface, its values named as in ``SceneTensors``; by default too far to be met."""
    row: Row = {"shape": shape, "affine": affine, "sphere": sphere, "shade": shade, "frame": frame}
    return row | {"wrap": 0.0, "material": NO_SURFACE} | label


@dataclass
class SceneBuilder:
    """Collects the surfaces of one world; what does not fit into its slots is left out."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {kind: [] for kind in LIMITS})
    materials: list[Material] = field(default_factory=list)
    blend: Number = 0.02
    shell_box: tuple[Vector, Vector] = ((-30.0, -30.0, 0.0), (30.0, 30.0, 30.0))
    shell_materials: list[int] = field(default_factory=lambda: [NO_SURFACE] * SHELL_FACES)
    """Faces -x, -y, -z (the floor), +x, +y, +z (the ceiling)."""
    lamps: list[Lamp] = field(default_factory=list)
    backdrop: Sequence[Vector] = ((0.0, 0.0, 0.0),) * 4 + ((0.3, 0.3, 0.3),)
    """Zenith, horizon, ground, (clouds, haze, 0), ambient light."""

    def room_left(self, *more: int) -> bool:
        """Tell whether that many more convex shapes, cards and blobs fit."""
        counts = zip(self.rows, more, strict=False)
        return all(len(self.rows[kind]) + count <= LIMITS[kind] for kind, count in counts)

    def add_material(self, material: Material) -> int:
        """Enter a material; returns its number. When the table is full, an older one serves."""
        if len(self.materials) >= MAX_MATERIALS:
            return len(self.rows["convex"]) % MAX_MATERIALS
        self.materials.append(material)
        return len(self.materials) - 1

    def add_convex(self, frame: Frame, quadric: Vector, half: Vector, material: int) -> None:
        """Add a convex shape around a frame's origin."""
        sides = np.maximum(np.asarray(half, float) * frame.scale, 1e-4)
        rounded = quadric[0] == 1.0 and quadric[1] == 1.0 and sides[2] > 0.3 * sides[0]
        wrap = (sides[0] + sides[1]) / 2 if rounded else 0.0
        shade = min(sorted(sides)[1], 2.5 * min(sides))
        reach = float(np.linalg.norm(sides))
        self._add("convex", frame, sides, quadric, reach, material, shade=shade, wrap=wrap)

    def add_card(self, frame: Frame, shape: Sequence[Number], half: Vector, material: int) -> None:
        """Add a thin sheet along a frame's x and y axes; see ``hit_cards`` for shapes.

        ``shape[0:2]`` bend it: its height over the sheet's plane is ``bend * (local / half)^2``,
        in units of ``half[0]``.
        """
        sides = np.array([half[0], half[1], half[0]]) * frame.scale
        reach = math.hypot(sides[0], sides[1], sides[2] * (abs(shape[0]) + abs(shape[1])))
        self._add("card", frame, sides, shape, reach, material)

    def add_blob(
        self, frame: Frame, core: Vector, radius: Number, material: int, ring: Number = 0.0
    ) -> None:
        """Add a rounded box, capsule, ball or ring that blends into its neighbours."""
        shape = np.array([*core, radius, ring]) * frame.scale
        reach = float(np.linalg.norm(shape[:3]) + shape[3] + shape[4])
        self._add("blob", frame, np.ones(3), shape, reach, material)

    def tensors(self) -> SceneTensors:
        """Lay the world out for the renderer, on the CPU; the scene axis has length 1."""
        arrays = _arrays(self)
        tensors = {}
        for name in SceneTensors.__dataclass_fields__:
            kind = np.int64 if name == "slot_material" else np.float32
            tensors[name] = torch.from_numpy(np.asarray(arrays[name], kind)[None])
        return SceneTensors(**tensors)

    def _add(  # noqa: PLR0913
        self,
        kind: str,
        frame: Frame,
        sides: np.ndarray,
        shape: Vector,
        reach: Number,
        material: int,
        **values: Number,
    ) -> None:
        if self.room_left(*(int(kind == other) for other in self.rows)):
            rigid, sphere = frame.inverse(), (*frame.origin, reach)
            row = _row(shape, rigid / sides[:, None], rigid, sphere, material=material, **values)
            self.rows[kind].append(row)


def _padded(rows: list[Any], count: int, filler: Any) -> list[Any]:  # noqa: ANN401
    return rows + [filler] * (count - len(rows))


def _arrays(scene: SceneBuilder) -> dict[str, Any]:
    """Lay one world out as padded arrays, named as in ``SceneTensors``."""
    slots = {
        kind: _padded(rows, LIMITS[kind], _row([0.0] * (9 if kind == "card" else 5)))
        for kind, rows in scene.rows.items()
    }
    arrays: dict[str, Any] = {
        f"{kind}_{name}": [row[name] for row in rows]
        for kind, rows in slots.items()
        for name in ("affine", "shape", "sphere", "shade")
    }
    every = [row for rows in slots.values() for row in rows]
    every += [_row(material=material) for material in scene.shell_materials]
    for name in ("frame", "wrap", "material"):
        arrays[f"slot_{name}"] = [row[name] for row in every]
    materials = [material.row() for material in scene.materials]
    return arrays | {
        "blob_blend": scene.blend,
        "blob_box": _blob_box(scene),
        "shell_box": scene.shell_box,
        "materials": _padded(materials, MAX_MATERIALS, [0.0] * MATERIAL_VALUES),
        "backdrop": scene.backdrop,
    }


def _blob_box(scene: SceneBuilder) -> list[np.ndarray]:
    """Bound the blobs."""
    spheres = np.array([row["sphere"] for row in scene.rows["blob"]]).reshape(-1, 4)
    reach = spheres[:, 3:] + 2 * scene.blend
    low, high = spheres[:, :3] - reach, spheres[:, :3] + reach
    return [low.min(0, initial=1e4), high.max(0, initial=-1e4)]
