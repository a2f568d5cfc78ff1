"""Worlds within walls: a table top, a room, plants in a hall, shelves. Units are metres."""

from __future__ import annotations

import math

from datasets.procedural import furniture
from datasets.procedural.bodies import any_hero
from datasets.procedural.dice import Dice, Number
from datasets.procedural.layout import World, baseline, indoor_shell, scatter, with_lens
from datasets.procedural.lighting import room_lights
from datasets.procedural.palette import cloth, one_of, printed
from datasets.procedural.paths import CameraPath
from datasets.procedural.placement import Frame, Vector
from datasets.procedural.plants import foliage, lattice, potted_plant, sheet
from datasets.procedural.scene import SceneBuilder
from datasets.procedural.surfaces import plaster, stone, wood
from datasets.procedural.things import any_small_thing


def table(scene: SceneBuilder, dice: Dice, difficulty: Number) -> World:
    """Build a cluttered table in a room."""
    half = (dice.uniform(1.6, 3.0), dice.uniform(1.6, 3.0))
    indoor_shell(scene, dice, half, dice.uniform(2.3, 3.0))
    height = dice.uniform(0.55, 0.8)
    top = (dice.uniform(0.5, 0.9), dice.uniform(0.4, 0.6))
    back = half[1] - top[1] - dice.uniform(0.1, 0.8)
    furniture.table(scene, dice, Frame((0.0, back, 0.0)), top, height)
    place = Frame((0.0, back, height), 0.0, dice.uniform(0.25, 0.5))
    reach = (0.75 * top[0] / place.scale, 0.6 * top[1] / place.scale)
    if dice.chance(0.6):
        any_hero(
            scene, dice, place.moved((dice.normal(0.3), dice.normal(0.2), 0), dice.normal(0.8), 1.2)
        )
    for _ in range(dice.integer(0, 3)):
        paper = scene.add_material(one_of(dice, (printed, cloth)))
        spot = (dice.uniform(-0.8, 0.8) * reach[0], dice.uniform(-1.0, 0.3) * reach[1], 0)
        sheet(scene, dice, place.moved(spot), paper)
    scatter(scene, dice, place, reach, dice.integer(4, 8 + round(6 * difficulty)))
    _behind_table(scene, dice, half)
    subject: Vector = (0.0, back - 0.05, height + 0.12)
    room_lights(scene, dice, subject)
    spread = baseline(dice, difficulty, 0.95)
    path = CameraPath(
        subject=subject,
        distance=dice.uniform(0.7, 1.4),
        azimuth=-math.pi / 2 + dice.uniform(-0.35, 0.35),
        elevation=dice.uniform(0.2, 0.85),
        spread=(spread, 0.45 * spread),
        kind=dice.pick(("cap", "cap", "grid", "walk")),
    )
    return World(scene, with_lens(path, dice, (45, 80)))


def _behind_table(scene: SceneBuilder, dice: Dice, half: tuple[Number, Number]) -> None:
    """Hang and stand a few things along the wall behind."""
    for x in (-0.6, 0.5):
        if dice.chance(0.6):
            spot = (x * half[0] + dice.normal(0.15), half[1] - 0.03, dice.uniform(1.1, 1.7))
            furniture.picture(scene, dice, Frame(spot, 0.0, dice.uniform(0.5, 1.0)))
    if dice.chance(0.4):
        corner = Frame((-half[0] + 0.5, half[1] - 0.4, 0.0), 0.0, dice.uniform(1.0, 1.6))
        if scene.room_left(cards=20):
            scene.next_object()
            potted_plant(scene, dice, corner)


def room(scene: SceneBuilder, dice: Dice, difficulty: Number) -> World:
    """Build a living room, an office or a bedroom, seen from within."""
    half = (dice.uniform(1.6, 3.2), dice.uniform(1.8, 3.0))
    indoor_shell(scene, dice, half, dice.uniform(2.3, 3.0))
    side = dice.pick((-1.0, 1.0))
    _along_back_wall(scene, dice, half, side)
    low = Frame((0.2 * side, half[1] - dice.uniform(1.3, 1.7), 0.0), dice.normal(0.2))
    height = dice.uniform(0.35, 0.7)
    furniture.table(scene, dice, low, (dice.uniform(0.35, 0.6), 0.3), height)
    scatter(scene, dice, low.moved((0, 0, height), scale=0.25), (1.4, 0.8), dice.integer(2, 6))
    if dice.chance(0.6):
        at_wall = Frame((-side * (half[0] - 0.25), half[1] - 0.9, 0.0), side * math.pi / 2)
        for board in furniture.shelf(scene, dice, at_wall, (0.5, 0.15), dice.integer(2, 4)):
            furniture.book_row(scene, dice, board, -0.85, dice.uniform(-0.4, 0.6))
    for _ in range(dice.integer(0, 2)):
        spot = (side * dice.uniform(0.6, 1.3), half[1] - dice.uniform(1.2, 2.0), 0.0)
        furniture.chair(scene, dice, Frame(spot, dice.uniform(0, 6.3)))
    _by_the_walls(scene, dice, half, side)
    subject: Vector = (dice.normal(0.3), half[1] - 1.0, dice.uniform(0.5, 1.1))
    room_lights(scene, dice, subject)
    spread = baseline(dice, difficulty, 0.7)
    path = CameraPath(
        subject=subject,
        distance=dice.uniform(1.6, half[1] * 1.7 - 0.9),
        azimuth=-math.pi / 2 + dice.uniform(-0.5, 0.5),
        elevation=dice.uniform(0.05, 0.35),
        spread=(spread, 0.25 * spread),
        kind=dice.pick(("cap", "walk", "grid")),
        converge=dice.uniform(0.3, 1.0),
    )
    return World(scene, with_lens(path, dice, (50, 90)))


def _along_back_wall(
    scene: SceneBuilder, dice: Dice, half: tuple[Number, Number], side: Number
) -> None:
    """Stand a sofa, a sideboard or a bed along the wall behind, with a hero on it now and then."""
    kind = dice.weighted([(3, "sofa"), (2, "sideboard"), (1, "bed")])
    place = Frame((side * 0.4, half[1] - 0.5, 0.0), dice.normal(0.06))
    top = 0.44
    if kind == "sofa":
        furniture.sofa(scene, dice, place)
    elif kind == "sideboard":
        top = dice.uniform(0.6, 0.95)
        furniture.cabinet(scene, dice, place, (dice.uniform(0.6, 1.2), 0.25), top)
        row = place.moved((0, 0, top), scale=0.4)
        scatter(scene, dice, row, (1.6, 0.25), dice.integer(2, 5))
    else:
        furniture.bed(scene, dice, place)
        top = 0.5
    if dice.chance(0.5):
        any_hero(scene, dice, place.moved((dice.uniform(-0.4, 0.4), -0.05, top), scale=0.5))
    for x in (-0.5, 0.6)[: dice.integer(1, 2)]:
        spot = (x * half[0] + dice.normal(0.1), half[1] - 0.03, dice.uniform(1.3, 1.8))
        hung = furniture.window if dice.chance(0.35) else furniture.picture
        hung(scene, dice, Frame(spot))


def _by_the_walls(
    scene: SceneBuilder, dice: Dice, half: tuple[Number, Number], side: Number
) -> None:
    """Add a rug, a lamp, a plant, a box on the floor."""
    if dice.chance(0.5):
        rug = scene.add_material(cloth(dice))
        size = (dice.uniform(0.7, 1.2), dice.uniform(0.5, 0.9), 0.006)
        scene.next_object()
        scene.add_convex(Frame(yaw=dice.normal(0.2)), "box", (0, half[1] - 1.6, 0.006), size, rug)
    corner = (side * (half[0] - 0.4), half[1] - 0.4, 0.0)
    if scene.room_left(cards=20) and dice.chance(0.7):
        scene.next_object()
        potted_plant(scene, dice, Frame(corner, 0.0, dice.uniform(1.0, 1.6)))
    for _ in range(dice.integer(0, 3)):
        x = side * (half[0] - dice.uniform(0.25, 0.6))
        if scene.room_left(convex=12):
            spot = Frame((x, half[1] - dice.uniform(0.9, 2.0), 0.0), dice.uniform(0, 6), 0.45)
            any_small_thing(scene, dice, spot)


def plants(scene: SceneBuilder, dice: Dice, difficulty: Number) -> World:
    """Build a forward-facing scene: plants in a hall, or a shelf against a wall."""
    depth = dice.uniform(2.0, 5.0)
    indoor_shell(scene, dice, (dice.uniform(2.5, 5.0), depth), dice.uniform(2.5, 4.0))
    if dice.chance(0.55):
        subject = _planter(scene, dice, depth)
    else:
        subject = _wall_of_shelves(scene, dice, depth)
    room_lights(scene, dice, subject)
    spread = baseline(dice, difficulty, 0.6)
    path = CameraPath(
        subject=subject,
        distance=dice.uniform(1.1, 1.9),
        azimuth=-math.pi / 2 + dice.uniform(-0.2, 0.2),
        elevation=dice.uniform(-0.05, 0.3),
        spread=(spread, 0.6 * spread),
        kind="grid",
        converge=dice.uniform(0.3, 1.0),
    )
    return World(scene, with_lens(path, dice, (50, 85)))


def _planter(scene: SceneBuilder, dice: Dice, depth: Number) -> Vector:
    """Stand plants in a trough before a distant wall."""
    trough, soil = (
        scene.add_material(one_of(dice, (stone, plaster, wood))),
        scene.add_material(stone(dice)),
    )
    scene.next_object()
    high = dice.uniform(0.2, 0.35)
    scene.add_convex(Frame(), "box", (0, 0, high), (dice.uniform(0.7, 1.6), 0.3, high), trough)
    scene.add_convex(Frame(), "box", (0, 0, 2 * high), (0.6, 0.25, 0.01), soil)
    for x in (0.0, -0.5, 0.55)[: dice.integer(1, 3)]:
        scene.next_object()
        spot = Frame((x, dice.normal(0.08), 2 * high), 0.0, dice.uniform(0.7, 1.1))
        foliage(scene, dice, spot, dice.integer(12, 24))
    for index in range(3):
        x = dice.uniform(-2, 2)
        furniture.column(scene, dice, Frame((x, dice.uniform(0.8, depth - 0.3), 0.0)), 4.0)
        if index and dice.chance(0.5):
            furniture.picture(scene, dice, Frame((x + 0.8, depth - 0.03, 1.4), 0.0, 1.3))
    furniture.chair(
        scene,
        dice,
        Frame((dice.uniform(-1.5, 1.5), dice.uniform(0.9, depth - 0.5), 0.0), dice.uniform(0, 6)),
    )
    any_small_thing(scene, dice, Frame((0.75, -0.1, 2 * high), 0.3, 0.3))
    return (0.0, 0.0, 2 * high + 0.45)


def _wall_of_shelves(scene: SceneBuilder, dice: Dice, depth: Number) -> Vector:
    """Fill shelves against the wall with books and things."""
    back = depth - 0.3
    levels = dice.integer(2, 4)
    boards = furniture.shelf(
        scene, dice, Frame((0.0, back, 0.0)), (dice.uniform(0.7, 1.1), 0.18), levels
    )
    for board in boards:
        middle = dice.uniform(-0.6, 0.5)
        furniture.book_row(scene, dice, board, -1.2, middle)
        for place in (middle + 0.45, middle + 0.95):
            if scene.room_left(convex=12):
                any_small_thing(
                    scene, dice, board.moved((place, -0.05, 0), dice.uniform(0, 6), 0.6)
                )
    if dice.chance(0.5):
        any_hero(scene, dice, boards[-1].moved((0.9, 0, 0.0), 0.0, 0.8))
    if dice.chance(0.5):
        scene.next_object()
        potted_plant(scene, dice, Frame((dice.pick((-1.4, 1.4)), back - 0.2, 0.0), 0.0, 1.3))
    if dice.chance(0.25):
        scene.next_object()
        lattice(scene, dice, Frame((-1.4, back - 0.3, 0.0), 0.3, 1.2))
    return (0.0, back - 0.15, dice.uniform(0.7, 1.0))
