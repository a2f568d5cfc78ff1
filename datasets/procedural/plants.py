"""Leaves, ferns, trees, lattices: what is thin."""

from __future__ import annotations

import math
from dataclasses import replace

from datasets.procedural.dice import Dice, Number
from datasets.procedural.materials import PATTERNS, Material
from datasets.procedural.palette import leaf, metal, one_of, smooth
from datasets.procedural.placement import Frame, along, turned
from datasets.procedural.scene import SceneBuilder, frustum
from datasets.procedural.surfaces import stone, wood

SHEET = [0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0]
"""A whole rectangle; see ``intersect.hit_cards``."""


def frond_shape(dice: Dice, droop: Number) -> list[Number]:
    """Return a leaf that is cut like a comb, as palms and ferns have them."""
    teeth = dice.uniform(5, 11)
    return [
        -droop,
        dice.uniform(-0.1, 0.25),
        1.0,
        teeth,
        -dice.uniform(1, 3),
        dice.uniform(0.5, 0.75),
        0,
        0,
        0.07,
    ]


def leaf_shape(dice: Dice, droop: Number) -> list[Number]:
    """Return a whole pointed leaf."""
    return [-droop, dice.uniform(-0.2, 0.4), 1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0]


def foliage(scene: SceneBuilder, dice: Dice, frame: Frame, count: int) -> None:
    """Let leaves spring from a point, arching outwards and down."""
    material = [scene.add_material(leaf(dice)) for _ in range(2)]
    ferny = dice.chance(0.5)
    width = dice.uniform(0.16, 0.3) if ferny else dice.uniform(0.1, 0.25)
    for index in range(count):
        yaw = 2.4 * index + dice.uniform(-0.4, 0.4)
        rise = dice.uniform(0.1, 1.25)
        length = dice.uniform(0.35, 0.6)
        direction = (math.cos(yaw) * math.cos(rise), math.sin(yaw) * math.cos(rise), math.sin(rise))
        center = tuple(value * length for value in direction)
        droop = dice.uniform(0.1, 0.5)
        shape = frond_shape(dice, droop) if ferny else leaf_shape(dice, droop)
        turn = along(direction, dice.uniform(-0.4, 0.4))
        scene.add_card(frame, center, (length, length * width), shape, dice.pick(material), turn)  # pyright: ignore[reportArgumentType]


def potted_plant(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a plant in a pot."""
    pot = scene.add_material(one_of(dice, (smooth, stone, metal, wood)))
    soil = scene.add_material(stone(dice))
    radius, half = dice.uniform(0.12, 0.22), dice.uniform(0.1, 0.17)
    shape = frustum(0.999) if dice.chance(0.3) else (1.0, 1.0, -0.0256, -0.2688, -0.7056)
    scene.add_convex(frame, shape, (0, 0, half), (radius, radius, half), pot)
    scene.add_convex(frame, "cylinder", (0, 0, 2 * half), (radius * 0.9, radius * 0.9, 0.01), soil)
    stem = dice.uniform(0.0, 0.3)
    if stem > 0.1:
        scene.add_convex(
            frame, "cylinder", (0, 0, 2 * half + stem / 2), (0.02, 0.02, stem / 2), soil
        )
    foliage(scene, dice, frame.moved((0, 0, 2 * half + stem)), dice.integer(9, 20))


def bush(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a bush from the ground up."""
    foliage(scene, dice, frame, dice.integer(10, 22))


def tree(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a tree with a crown of leafy balls."""
    trunk, crown = scene.add_material(wood(dice)), scene.add_material(_crown(dice))
    height, radius = dice.uniform(0.25, 0.45), dice.uniform(0.02, 0.05)
    scene.add_convex(frame, frustum(0.6), (0, 0, height), (radius, radius, height), trunk)
    conical = dice.chance(0.3)
    for index in range(dice.integer(3, 6)):
        if conical:
            size = 0.34 * (1 - index / 6)
            center = (0.0, 0.0, height + 0.25 * index)
            scene.add_convex(frame, "cone", center, (size, size, 0.3), crown)
        else:
            angle, size = 2.1 * index, dice.uniform(0.16, 0.3)
            center = (
                0.2 * math.cos(angle),
                0.2 * math.sin(angle),
                2 * height + dice.uniform(-0.1, 0.3),
            )
            scene.add_convex(frame, "ellipsoid", center, (size, size, size * 0.85), crown)


def _crown(dice: Dice) -> Material:
    return replace(
        leaf(dice),
        pattern=float(PATTERNS.index("grass")),
        frequency=dice.uniform(1, 4),
        noise=0.7,
        noise_frequency=6.0,
        bump=0.8,
    )


def lattice(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a grid, a fence or a blind that stands upright."""
    material = scene.add_material(one_of(dice, (metal, wood, smooth)))
    bars = dice.chance(0.6)
    shape = [0.0, 0.0, 0.0, dice.uniform(2, 5), 0.0, dice.uniform(0.12, 0.35), 0.0, 0.0, 0.0]
    if bars:
        shape[6:8] = [dice.uniform(2, 5), dice.uniform(0.12, 0.3)]
    half = (dice.uniform(0.3, 0.7), dice.uniform(0.3, 0.5))
    turn = turned(0, 0, math.pi / 2)
    scene.add_card(frame, (0, 0, half[1]), half, shape, material, turn)


def sheet(scene: SceneBuilder, dice: Dice, frame: Frame, material: int) -> None:
    """Lay down a sheet of paper or cloth, slightly bent."""
    half = (dice.uniform(0.2, 0.4), dice.uniform(0.15, 0.3))
    shape = list(SHEET)
    shape[0] = dice.uniform(0.0, 0.12)
    scene.add_card(frame, (0, 0, 0.006), half, shape, material, turned(dice.uniform(0, 6)))
