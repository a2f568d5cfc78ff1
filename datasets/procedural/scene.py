"""A world as a list of surfaces, while it is being built."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from datasets.procedural.dice import Number
from datasets.procedural.materials import Material
from datasets.procedural.placement import UPRIGHT, Frame, Rotation, Vector, product, turned

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
"""Convex bodies: ``ax x^2 + ay y^2 + az z^2 + b z + c <= 0`` inside the cube of half-side 1."""

NO_SURFACE = -1
SHELL_FACES = 6


def frustum(top: Number) -> tuple[Number, Number, Number, Number, Number]:
    """Return the quadric of a cone with radius 1 at the bottom that is cut at radius ``top``."""
    middle, slope = (1 + top) / 2, (top - 1) / 2
    return (1.0, 1.0, -(slope**2), -2 * middle * slope, -(middle**2))


@dataclass(frozen=True)
class Light:
    """A lamp (or the sun, far away). Its colour is what white receives at the scene's centre."""

    position: Vector
    radius: Number
    colour: Vector


@dataclass(frozen=True)
class Backdrop:
    """What is seen where there is no surface, and what shiny things mirror. Linear colours."""

    zenith: Vector = (0.0, 0.0, 0.0)
    horizon: Vector = (0.0, 0.0, 0.0)
    ground: Vector = (0.0, 0.0, 0.0)
    clouds: Number = 0.0
    haze: Number = 0.0
    """Share of light that is lost to the horizon's colour per world unit."""
    ambient: Vector = (0.3, 0.3, 0.3)
    """Light from all around, on a surface that faces upwards."""


@dataclass
class SceneBuilder:
    """Collects the surfaces of one world."""

    convex: list[tuple[list[Number], ...]] = field(default_factory=list)
    cards: list[tuple[list[Number], ...]] = field(default_factory=list)
    blobs: list[tuple[list[Number], ...]] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)
    labels: dict[str, list[tuple[int, int, Number]]] = field(
        default_factory=lambda: {"convex": [], "cards": [], "blobs": []}
    )
    """Material, object and wrapping radius of each surface."""
    blend: Number = 0.02
    relief_waves: list[list[Number]] = field(default_factory=list)
    relief_level: Number = 0.0
    relief_material: int = NO_SURFACE
    shell_box: tuple[Vector, Vector] = ((-30.0, -30.0, 0.0), (30.0, 30.0, 30.0))
    shell_materials: list[int] = field(default_factory=lambda: [NO_SURFACE] * SHELL_FACES)
    """Faces -x, -y, -z (the floor), +x, +y, +z (the ceiling)."""
    lights: list[Light] = field(default_factory=list)
    backdrop: Backdrop = field(default_factory=Backdrop)
    object_id: int = SHELL_FACES + 1
    """Id that the next surfaces carry; 0 is nothing, 1 to 6 the shell, 7 the height field."""
    limits: tuple[int, int, int] = (96, 48, 14)
    """Slots for convex bodies, cards and blobs: what does not fit is left away."""
    max_materials: int = 48

    def next_object(self) -> None:
        """Give the surfaces that follow an id of their own."""
        self.object_id += 1

    def room_left(self, convex: int = 0, cards: int = 0, blobs: int = 0) -> bool:
        """Tell whether that many more surfaces fit."""
        return (
            len(self.convex) + convex <= self.limits[0]
            and len(self.cards) + cards <= self.limits[1]
            and len(self.blobs) + blobs <= self.limits[2]
        )

    def add_material(self, material: Material) -> int:
        """Enter a material; returns its number. When the table is full, an older one serves."""
        if len(self.materials) >= self.max_materials:
            return self.object_id % self.max_materials
        self.materials.append(material)
        return len(self.materials) - 1

    def add_convex(
        self,
        frame: Frame,
        shape: str | tuple[Number, Number, Number, Number, Number],
        center: Vector,
        half: Vector,
        material: int,
        turn: Rotation = UPRIGHT,
    ) -> None:
        """Add a convex body; centre and half sides are in the frame's units."""
        if not self.room_left(convex=1):
            return
        quadric = QUADRICS[shape] if isinstance(shape, str) else shape
        half = tuple(max(value * frame.scale, 1e-4) for value in half)  # pyright: ignore[reportAssignmentType]
        rotation = product(turned(frame.yaw), turn)
        world = frame.to_world(center)
        rigid = _inverse_rigid(rotation, world)
        affine = [value / half[row] for row in range(3) for value in rigid[4 * row : 4 * row + 4]]
        rounded = quadric[0] == 1.0 and quadric[1] == 1.0
        radius = max(math.hypot(half[0], half[1]), half[2]) if rounded else math.hypot(*half)
        sphere = [*world, max(math.hypot(*half), radius)]
        shade = [min(sorted(half)[1], 2.5 * min(half))]
        self.convex.append((affine, list(quadric), sphere, shade, rigid))
        wrap = (half[0] + half[1]) / 2 if rounded and half[2] > 0.3 * half[0] else 0.0
        self.labels["convex"].append((material, self.object_id, wrap))

    def add_card(
        self,
        frame: Frame,
        center: Vector,
        half: tuple[Number, Number],
        shape: list[Number],
        material: int,
        turn: Rotation = UPRIGHT,
    ) -> None:
        """Add a thin sheet along its local x and y axes; see ``intersect.hit_cards`` for shapes.

        ``shape[0:2]`` bend it: its height over the sheet's plane is ``bend * (local / half)^2``,
        in units of ``half[0]``.
        """
        if not self.room_left(cards=1):
            return
        rotation = product(turned(frame.yaw), turn)
        world = frame.to_world(center)
        rigid = _inverse_rigid(rotation, world)
        sides = (half[0] * frame.scale, half[1] * frame.scale, half[0] * frame.scale)
        affine = [value / sides[row] for row in range(3) for value in rigid[4 * row : 4 * row + 4]]
        rise = sides[2] * (abs(shape[0]) + abs(shape[1]))
        sphere = [*world, math.hypot(sides[0], sides[1], rise)]
        self.cards.append((affine, shape, sphere, [], rigid))
        self.labels["cards"].append((material, self.object_id, 0.0))

    def add_blob(
        self,
        frame: Frame,
        center: Vector,
        core: Vector,
        radius: Number,
        material: int,
        turn: Rotation = UPRIGHT,
        ring: Number = 0.0,
    ) -> None:
        """Add a rounded box, capsule, ball or ring that melts into its neighbours."""
        if not self.room_left(blobs=1):
            return
        rotation = product(turned(frame.yaw), turn)
        world = frame.to_world(center)
        rigid = _inverse_rigid(rotation, world)
        core = tuple(value * frame.scale for value in core)  # pyright: ignore[reportAssignmentType]
        radius, ring = radius * frame.scale, ring * frame.scale
        reach = math.hypot(*core) + radius + ring
        self.blobs.append((rigid, [*core, radius, ring], [*world, reach], [], rigid))
        self.labels["blobs"].append((material, self.object_id, 0.0))


def _inverse_rigid(rotation: Rotation, origin: Vector) -> list[Number]:
    """Return the 3x4 world-to-local map of a frame, row by row."""
    rows: list[Number] = []
    for axis in range(3):
        column = [rotation[row][axis] for row in range(3)]
        offset = -sum(a * b for a, b in zip(column, origin, strict=True))
        rows += [*column, offset]
    return rows
