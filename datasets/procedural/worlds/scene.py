"""Random numbers, and the construction of a scene from surfaces."""

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
    """Random number generator: equal keys give equal sequences on any machine."""

    def __init__(self, *key: int | str) -> None:
        self._key = key
        # Python guarantees the sequence of this method alone across versions.
        self._random = random.Random("/".join(map(str, key))).random

    def child(self, *key: int | str) -> Rng:
        """Return an independent generator, whatever has been drawn from this one."""
        return Rng(*self._key, *key)

    def uniform(self, low: Number, high: Number) -> float:
        """Draw a number between two bounds."""
        return low + (high - low) * self._random()

    def log_uniform(self, low: Number, high: Number) -> float:
        """Draw a positive number with a uniform logarithm."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def normal(self, spread: Number) -> float:
        """Draw from a normal distribution with mean 0 and standard deviation ``spread``."""
        radius = math.sqrt(-2 * math.log(1 - self._random()))
        return spread * radius * math.cos(2 * math.pi * self._random())

    def integer(self, low: int, high: int) -> int:
        """Draw an integer, bounds included."""
        return low + int(self._random() * (high - low + 1))

    def chance(self, probability: Number) -> bool:
        """Return True with a probability."""
        return self._random() < probability

    def pick(self, *options: Any) -> Any:  # noqa: ANN401
        """Pick one of the arguments, or of the items or words of a single argument."""
        items = options[0] if len(options) == 1 else options
        items = items.split() if isinstance(items, str) else items
        return items[int(self._random() * len(items))]

    def weighted(self, options: list[tuple[Number, str]]) -> str:
        """Pick an option of (weight, option) pairs."""
        remaining = self._random() * sum(weight for weight, _ in options)
        for weight, option in options:
            remaining -= weight
            if remaining < 0:
                return option
        return options[-1][1]

    def colour(self) -> Colour:
        """Draw a display colour: mostly muted, sometimes vivid."""
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
"""Slots of a scene by kind."""
MAX_MATERIALS = 48
NO_SURFACE = -1
_FAR_AWAY, _IDENTITY = np.full((3, 4), [0, 0, 0, 1e3]), np.eye(3, 4)


def frustum(taper: Number) -> Quadric:
    """Return a frustum of radius 1 at the wider end; top radius = ``taper`` * bottom radius."""
    narrow = min(taper, 1 / taper, 0.999)
    middle, slope = (1 + narrow) / 2, (narrow - 1) / 2
    upwards = 1 if taper < 1 else -1
    return (1.0, 1.0, -(slope**2), -2 * middle * slope * upwards, -(middle**2))


def euler_rotation(
    yaw: Number = 0.0, pitch: Number = 0.0, roll: Number = 0.0
) -> Float[np.ndarray, "3 3"]:
    """Return the rotation by roll about x, then pitch about y, then yaw about z (up)."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    level = np.array([[cy, -sy, 0.0], [sy, cy, 0.0], [0.0, 0.0, 1.0]])
    tilt = np.array([[cp, sp * sr, sp * cr], [0.0, cr, -sr], [-sp, cp * sr, cp * cr]])
    return level @ tilt


@dataclass(frozen=True)
class Frame:
    """Coordinate frame of an object, with the z axis up."""

    origin: Float[np.ndarray, 3] = field(default_factory=lambda: np.zeros(3))
    rotation: Float[np.ndarray, "3 3"] = field(default_factory=lambda: np.eye(3))
    scale: Number = 1.0

    def moved(
        self, point: Vector = (0, 0, 0), turn: Sequence[Number] = (), scale: Number = 1.0
    ) -> Frame:
        """Return a frame at a point of this one, with a further rotation and scale."""
        origin = self.origin + self.scale * (self.rotation @ np.array(point))
        rotation = self.rotation @ euler_rotation(*turn) if turn else self.rotation
        return Frame(origin, rotation, self.scale * scale)


@dataclass(frozen=True)
class Lamp:
    """A spherical lamp. Its colour is the light that arrives at the subject."""

    position: Vector
    radius: Number
    colour: Vector


def _row(
    shape: Vector = (),
    affine: np.ndarray = _FAR_AWAY,
    frame: np.ndarray = _IDENTITY,
    sphere: Vector = (0.0, 0.0, -1e3, 0.0),
    **label: Number,
) -> Row:
    """Return the values of a surface, named as in ``SceneTensors``; by default of a free slot."""
    row: Row = {"shape": shape, "affine": affine, "sphere": sphere, "frame": frame}
    return row | {"shade": 0.0, "wrap": 0.0, "material": NO_SURFACE} | label


@dataclass
class SceneBuilder:
    """Collects the surfaces of a world; surfaces beyond the number of slots are left out."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {kind: [] for kind in LIMITS})
    materials: list[Material] = field(default_factory=list)
    blend: Number = 0.02
    shell_box: tuple[Vector, Vector] = ((-30.0, -30.0, 0.0), (30.0, 30.0, 30.0))
    shell_materials: list[int] = field(default_factory=lambda: [NO_SURFACE] * SHELL_FACES)
    """Materials of the faces -x, -y, -z (floor), +x, +y, +z (ceiling)."""
    lamps: list[Lamp] = field(default_factory=list)
    backdrop: Sequence[Vector] = ((0.0, 0.0, 0.0),) * 4 + ((0.3, 0.3, 0.3),)
    """Zenith, horizon, ground, (clouds, haze, 0), ambient light."""

    def room_left(self, *more: int) -> bool:
        """Tell whether ``more`` convex shapes, cards and blobs fit."""
        counts = zip(self.rows, more, strict=False)
        return all(len(self.rows[kind]) + count <= LIMITS[kind] for kind, count in counts)

    def add_material(self, material: Material) -> int:
        """Add a material and return its number; if the table is full, return another's number."""
        if len(self.materials) >= MAX_MATERIALS:
            return len(self.rows["convex"]) % MAX_MATERIALS
        self.materials.append(material)
        return len(self.materials) - 1

    def add_convex(self, frame: Frame, quadric: Vector, half: Vector, material: int) -> None:
        """Add a convex shape centred at a frame's origin."""
        sides = np.maximum(np.asarray(half, float) * frame.scale, 1e-4)
        rounded = quadric[0] == 1.0 and quadric[1] == 1.0 and sides[2] > 0.3 * sides[0]
        wrap = (sides[0] + sides[1]) / 2 if rounded else 0.0
        shade = min(sorted(sides)[1], 2.5 * min(sides))
        reach = float(np.linalg.norm(sides))
        label = {"material": material, "shade": shade, "wrap": wrap}
        self._add("convex", frame, sides, quadric, reach, **label)

    def add_card(self, frame: Frame, shape: Sequence[Number], half: Vector, material: int) -> None:
        """Add a thin sheet along a frame's x and y axes; see ``hit_cards`` for ``shape``."""
        sides = np.array([half[0], half[1], half[0]]) * frame.scale
        reach = math.hypot(sides[0], sides[1], sides[2] * (abs(shape[0]) + abs(shape[1])))
        self._add("card", frame, sides, shape, reach, material=material)

    def add_blob(
        self, frame: Frame, core: Vector, radius: Number, material: int, ring: Number = 0.0
    ) -> None:
        """Add a rounded box, capsule, ball or ring, which blends with other blobs."""
        shape = np.array([*core, radius, ring]) * frame.scale
        reach = float(np.linalg.norm(shape[:3]) + shape[3] + shape[4])
        self._add("blob", frame, np.ones(3), shape, reach, material=material)

    def tensors(self) -> SceneTensors:
        """Return the renderer's tensors on the CPU; the scene axis has length 1."""
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
        all_rows: list[Row] = []
        for kind, rows in self.rows.items():
            slots = _padded(rows, LIMITS[kind], _row([0.0] * (9 if kind == "card" else 5)))
            all_rows += slots
            for name in ("affine", "shape", "sphere", "shade"):
                arrays[f"{kind}_{name}"] = [row[name] for row in slots]
        all_rows += [_row(material=material) for material in self.shell_materials]
        for name in ("frame", "wrap", "material"):
            arrays[f"slot_{name}"] = [row[name] for row in all_rows]
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
