"""The kinds of worlds, by name; here are those without walls: a studio set and a courtyard.

World units are about metres, except in the studio, where the subject is about one unit tall.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from datasets.procedural import furniture
from datasets.procedural.bodies import any_hero, rolling_ground
from datasets.procedural.dice import Dice, Number
from datasets.procedural.indoors import plants, room, table
from datasets.procedural.layout import World, baseline, scatter, with_lens
from datasets.procedural.lighting import daylight, studio_backdrop, studio_lights
from datasets.procedural.palette import cloth, leaf, one_of, printed, smooth
from datasets.procedural.paths import DTU_SUBJECT, CameraPath
from datasets.procedural.placement import Frame, Vector
from datasets.procedural.plants import bush, potted_plant, tree
from datasets.procedural.scene import NO_SURFACE, SceneBuilder
from datasets.procedural.surfaces import ground, plaster, stone, wood
from datasets.procedural.things import any_small_thing


def studio(scene: SceneBuilder, dice: Dice, difficulty: Number) -> World:
    """Build a set: one subject, some company, a table that ends, nothing behind it."""
    top = scene.add_material(one_of(dice, (wood, cloth, plaster, smooth, stone, printed)))
    half = dice.uniform(0.9, 1.1)
    if dice.chance(0.3):
        scene.add_convex(Frame(), "cylinder", (0, 0, -0.05), (half, half, 0.05), top)
    else:
        scene.add_convex(
            Frame(yaw=dice.uniform(-0.4, 0.4)), "box", (0, 0, -0.05), (half, half * 0.9, 0.05), top
        )
    scene.shell_box = ((-40.0, -40.0, -20.0), (40.0, 40.0, 40.0))
    heading = dice.uniform(-0.7, 0.7)
    subject = dice.weighted([(5, "body"), (3, "pile"), (2, "house"), (2, "plant")])
    if subject == "body":
        any_hero(scene, dice, Frame(yaw=heading, scale=dice.uniform(0.8, 1.1)))
    elif subject == "plant":
        scene.next_object()
        potted_plant(scene, dice, Frame(scale=0.9))
    elif subject == "house":
        front = Frame((0.0, 0.25, 0.0), heading, 0.45)
        furniture.facade(scene, dice, front, (dice.uniform(0.8, 1.3), 0.6), dice.integer(2, 3))
    company = dice.integer(1, 3 + round(3 * difficulty))
    if subject == "pile":
        scatter(scene, dice, Frame(scale=0.75), (0.6, 0.6), company + 3)
    else:
        _ring(scene, dice, company)
    studio_backdrop(scene, dice)
    studio_lights(scene, dice, DTU_SUBJECT, 4.0)
    spread = baseline(dice, difficulty, 1.1)
    path = CameraPath(
        subject=DTU_SUBJECT,
        distance=dice.uniform(2.2, 3.4),
        azimuth=-math.pi / 2 + dice.uniform(-0.4, 0.4),
        elevation=dice.uniform(0.15, 0.85),
        spread=(spread, 0.5 * spread),
    )
    return World(scene, with_lens(path, dice, (20, 50)))


def _ring(scene: SceneBuilder, dice: Dice, count: int) -> None:
    """Stand small things around the subject."""
    start = dice.uniform(0, 6.3)
    for index in range(count):
        angle = start + 2 * math.pi * index / max(count, 3)
        away = dice.uniform(0.6, 0.8)
        spot = (away * math.cos(angle), away * math.sin(angle), 0.0)
        if scene.room_left(convex=12):
            size = dice.uniform(0.25, 0.5)
            any_small_thing(scene, dice, Frame(spot, dice.uniform(0, 6.3), size))


def courtyard(scene: SceneBuilder, dice: Dice, difficulty: Number) -> World:
    """Build the outdoors: a house, its neighbours, trees, hills, sky."""
    scene.shell_box = ((-45.0, -45.0, 0.0), (45.0, 45.0, 40.0))
    floor = scene.add_material(ground(dice))
    scene.shell_materials = [NO_SURFACE, NO_SURFACE, floor, NO_SURFACE, NO_SURFACE, NO_SURFACE]
    rows, wide = dice.integer(1, 3), dice.uniform(1.0, 2.4)
    furniture.facade(scene, dice, Frame((0.0, 0.6, 0.0), dice.normal(0.15)), (wide, 0.6), rows)
    if dice.chance(0.7):
        side = dice.pick((-1.0, 1.0))
        wing = Frame((side * (wide + 0.7), -0.2, 0.0), -side * dice.uniform(0.0, 1.5))
        furniture.facade(scene, dice, wing, (dice.uniform(0.6, 1.2), 0.5), dice.integer(1, 4))
    for _ in range(dice.integer(1, 2 + round(3 * difficulty))):
        spot = (dice.uniform(-3, 3), dice.uniform(-1.6, -0.6), 0.0)
        scene.next_object()
        plant = dice.pick((tree, tree, bush)) if scene.room_left(cards=22) else tree
        plant(scene, dice, Frame(spot, 0.0, dice.uniform(0.6, 1.3) if plant is tree else 0.4))
    _far_away(scene, dice)
    if dice.chance(0.35):
        lawn = scene.add_material(ground(dice))
        scene.relief_material = lawn
        rolling_ground(scene, dice, -0.02, dice.uniform(0.05, 0.15), dice.uniform(2, 6))
    if dice.chance(0.35):
        any_hero(scene, dice, Frame((dice.uniform(-1, 1), -1.2, 0.0), dice.normal(0.5), 0.7))
    subject: Vector = (0.0, 0.0, dice.uniform(0.5, 1.1))
    daylight(scene, dice, subject)
    spread = baseline(dice, difficulty, 0.8)
    path = CameraPath(
        subject=subject,
        distance=dice.uniform(3.0, 6.5),
        azimuth=-math.pi / 2 + dice.uniform(-0.6, 0.6),
        elevation=dice.uniform(0.02, 0.4),
        spread=(spread, 0.2 * spread),
        kind=dice.pick(("cap", "walk", "grid")),
        converge=dice.uniform(0.4, 1.0),
    )
    return World(scene, with_lens(path, dice, (45, 85)))


def _far_away(scene: SceneBuilder, dice: Dice) -> None:
    """Put houses, trees and hills on the horizon."""
    hill = scene.add_material(replace(leaf(dice), noise=0.4, noise_frequency=0.5))
    for index in range(dice.integer(2, 6)):
        x, y = dice.uniform(-18, 18), dice.uniform(5, 26)
        scene.next_object()
        if index % 2:
            size = (dice.uniform(6, 14), dice.uniform(3, 6), dice.uniform(1, 4))
            scene.add_convex(Frame(), "ellipsoid", (x, y + 12, 0), size, hill)
        elif scene.room_left(convex=10):
            scene.next_object()
            house = Frame((x, y, 0.0), dice.normal(0.3))
            furniture.facade(scene, dice, house, (dice.uniform(1, 3), 1.0), dice.integer(2, 6))


ARCHETYPE_CODE: dict[str, Callable[[SceneBuilder, Dice, float], World]] = {
    "studio": studio,
    "table": table,
    "room": room,
    "plants": plants,
    "courtyard": courtyard,
}
