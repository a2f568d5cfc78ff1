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
    """A stream of random choices. Equal keys give equal streams, on any machine."""

    def __init__(self, *key: int | str) -> None:
        self._key = key
        # Only ``random`` is used: Python guarantees its sequence across versions.
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
        varied = (channel * scale + self.uniform(-amount, amount) * 0.6 for channel in colour)
        red, green, blue = (min(max(channel, 0.02), 0.97) for channel in varied)
        return red, green, blue


Vector = Sequence[Number] | np.ndarray
Row = dict[str, Any]

Quadric = tuple[Number, Number, Number, Number, Number]
QUADRICS: dict[str, Quadric] = {
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


def frustum(taper: Number) -> Quadric:
    """Return a cut cone of radius 1 at the wider end; the top is ``taper`` times the bottom."""
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
    **label: Number,
) -> Row:
    """Return one surface, its values named as in ``SceneTensors``; by default too far to be met."""
    row: Row = {"shape": shape, "affine": affine, "sphere": sphere, "frame": frame}
    return row | {"shade": 0.0, "wrap": 0.0, "material": NO_SURFACE} | label


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
        label = {"material": material, "shade": shade, "wrap": wrap}
        self._add("convex", frame, sides, quadric, reach, **label)

    def add_card(self, frame: Frame, shape: Sequence[Number], half: Vector, material: int) -> None:
        """Add a thin sheet along a frame's x and y axes; see ``hit_cards`` for shapes."""
        sides = np.array([half[0], half[1], half[0]]) * frame.scale
        reach = math.hypot(sides[0], sides[1], sides[2] * (abs(shape[0]) + abs(shape[1])))
        self._add("card", frame, sides, shape, reach, material=material)

    def add_blob(
        self, frame: Frame, core: Vector, radius: Number, material: int, ring: Number = 0.0
    ) -> None:
        """Add a rounded box, capsule, ball or ring that blends into its neighbours."""
        shape = np.array([*core, radius, ring]) * frame.scale
        reach = float(np.linalg.norm(shape[:3]) + shape[3] + shape[4])
        self._add("blob", frame, np.ones(3), shape, reach, material=material)

    def tensors(self) -> SceneTensors:
        """Lay the world out for the renderer, on the CPU; the scene axis has length 1."""
        spheres = np.array([row["sphere"] for row in self.rows["blob"]]).reshape(-1, 4)
        reach = spheres[:, 3:] + 2 * self.blend
        low, high = spheres[:, :3] - reach, spheres[:, :3] + reach
        materials = [material.row() for material in self.materials]
        arrays: dict[str, Any] = {
            "blob_blend": self.blend,
            "blob_box": [low.min(0, initial=1e4), high.max(0, initial=-1e4)],
            "shell_box": self.shell_box,
            "materials": _padded(materials, MAX_MATERIALS, [0.0] * MATERIAL_VALUES),
            "backdrop": self.backdrop,
        }
        every: list[Row] = []
        for kind, rows in self.rows.items():
            slots = _padded(rows, LIMITS[kind], _row([0.0] * (9 if kind == "card" else 5)))
            every += slots
            for name in ("affine", "shape", "sphere", "shade"):
                arrays[f"{kind}_{name}"] = [row[name] for row in slots]
        every += [_row(material=material) for material in self.shell_materials]
        for name in ("frame", "wrap", "material"):
            arrays[f"slot_{name}"] = [row[name] for row in every]
        tensors = {}
        for name in SceneTensors.__dataclass_fields__:
            kind = np.int64 if name == "slot_material" else np.float32
            tensors[name] = torch.from_numpy(np.asarray(arrays[name], kind)[None])
        return SceneTensors(**tensors)

    def _add(
        self,
        kind: str,
        frame: Frame,
        sides: np.ndarray,
        shape: Vector,
        reach: Number,
        **label: Number,
    ) -> None:
        if len(self.rows[kind]) < LIMITS[kind]:
            # The rigid map from the world into the frame.
            rigid = np.column_stack([frame.rotation.T, -frame.rotation.T @ frame.origin])
            sphere = (*frame.origin, reach)
            self.rows[kind].append(_row(shape, rigid / sides[:, None], rigid, sphere, **label))


def _padded(rows: list[Any], count: int, filler: Any) -> list[Any]:  # noqa: ANN401
    return rows + [filler] * (count - len(rows))
