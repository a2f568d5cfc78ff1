"""Tables, chairs, shelves, pictures, buildings: what other things stand on or before."""

from __future__ import annotations

import math

from datasets.procedural.colours import shifted
from datasets.procedural.dice import Dice, Number
from datasets.procedural.materials import make_material
from datasets.procedural.palette import any_thing, cloth, metal, one_of, printed, smooth
from datasets.procedural.placement import Frame, turned
from datasets.procedural.scene import SceneBuilder
from datasets.procedural.surfaces import masonry, painted_windows, plaster, stone, wood


def table(
    scene: SceneBuilder, dice: Dice, frame: Frame, half: tuple[Number, Number], height: Number
) -> None:
    """Build a table whose top is ``height`` above the frame."""
    scene.next_object()
    top = scene.add_material(one_of(dice, (wood, wood, wood, smooth, stone, cloth)))
    legs = scene.add_material(one_of(dice, (wood, metal)))
    thick = 0.03
    if dice.chance(0.2):
        scene.add_convex(frame, "cylinder", (0, 0, height - thick), (half[0], half[0], thick), top)
    else:
        scene.add_convex(frame, "box", (0, 0, height - thick), (*half, thick), top)
    leg = (height - 2 * thick) / 2
    for x in (-0.85, 0.85):
        for y in (-0.8, 0.8):
            center = (x * half[0], y * half[1], leg)
            scene.add_convex(frame, "box", center, (0.035, 0.035, leg), legs)


def chair(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a chair, about one unit tall, that faces -y."""
    scene.next_object()
    seat, legs = (
        scene.add_material(one_of(dice, (wood, cloth, smooth))),
        scene.add_material(one_of(dice, (wood, metal))),
    )
    scene.add_convex(frame, "box", (0, 0, 0.47), (0.24, 0.23, 0.03), seat)
    for x in (-0.2, 0.2):
        for y in (-0.2, 0.2):
            scene.add_convex(frame, "cylinder", (x, y, 0.22), (0.02, 0.02, 0.22), legs)
    scene.add_convex(frame, "box", (0, 0.22, 0.75), (0.24, 0.02, 0.22), seat, turned(0, 0, -0.1))


def sofa(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a sofa that faces -y, with cushions."""
    scene.next_object()
    cover, other = scene.add_material(cloth(dice)), scene.add_material(cloth(dice))
    wide = dice.uniform(0.6, 1.0)
    scene.add_convex(frame, "box", (0, 0, 0.22), (wide, 0.4, 0.22), cover)
    scene.add_convex(frame, "box", (0, 0.33, 0.55), (wide, 0.1, 0.3), cover, turned(0, 0, -0.15))
    for side in (-1, 1):
        arm = (side * wide, 0, 0.6)
        scene.add_convex(frame, "vault", (arm[0], 0, 0.33), (0.1, 0.4, 0.33), cover)
        cushion = (side * wide * 0.55, 0.15, 0.6)
        scene.add_convex(
            frame, "ellipsoid", cushion, (0.22, 0.1, 0.2), other, turned(0.2 * side, 0, -0.3)
        )


def cabinet(
    scene: SceneBuilder, dice: Dice, frame: Frame, half: tuple[Number, Number], height: Number
) -> None:
    """Build a sideboard or a chest of drawers that faces -y."""
    scene.next_object()
    body = scene.add_material(one_of(dice, (wood, wood, smooth, plaster)))
    front = scene.add_material(one_of(dice, (wood, smooth, plaster)))
    knob = scene.add_material(metal(dice))
    wide, deep = half
    scene.add_convex(frame, "box", (0, 0, height / 2), (wide, deep, height / 2), body)
    columns, rows = dice.integer(2, 4), dice.integer(1, 3)
    for column in range(columns):
        for row in range(rows):
            x = wide * (2 * (column + 0.5) / columns - 1)
            z = height * (row + 0.5) / rows
            panel = (0.9 * wide / columns, 0.015, 0.43 * height / rows)
            scene.add_convex(frame, "box", (x, -deep, z), panel, front)
            scene.add_convex(frame, "ellipsoid", (x, -deep - 0.03, z), (0.02, 0.02, 0.02), knob)


def bed(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a bed whose head is at the wall behind."""
    scene.next_object()
    sheets, blanket = scene.add_material(cloth(dice)), scene.add_material(cloth(dice))
    board = scene.add_material(wood(dice))
    scene.add_convex(frame, "box", (0, -0.5, 0.2), (0.75, 0.95, 0.16), sheets)
    scene.add_convex(frame, "box", (0, -0.75, 0.26), (0.78, 0.72, 0.15), blanket)
    scene.add_convex(frame, "box", (0, 0.45, 0.5), (0.8, 0.03, 0.5), board)
    for x in (-0.35, 0.35):
        scene.add_convex(
            frame, "ellipsoid", (x, 0.22, 0.44), (0.3, 0.2, 0.1), sheets, turned(0, 0, 0.3)
        )


def window(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Set a bright window into a wall behind the frame (which faces -y)."""
    scene.next_object()
    border = scene.add_material(one_of(dice, (plaster, wood)))
    pane = make_material(
        "brick",
        dice.pick(((0.8, 0.88, 0.95), (0.95, 0.95, 0.95), (0.6, 0.75, 0.6))),
        (0.85, 0.85, 0.83),
        frequency=dice.uniform(1.5, 3),
        detail=0.04,
        emission=dice.uniform(0.3, 1.5),
        reflection=0.05,
    )
    glass = scene.add_material(pane)
    half = (dice.uniform(0.35, 0.6), dice.uniform(0.4, 0.6))
    scene.add_convex(frame, "box", (0, 0, 0), (half[0] + 0.05, 0.03, half[1] + 0.05), border)
    scene.add_convex(frame, "box", (0, -0.015, 0), (half[0], 0.03, half[1]), glass)
    scene.add_convex(frame, "box", (0, -0.06, -half[1] - 0.06), (half[0] + 0.1, 0.1, 0.02), border)


def shelf(
    scene: SceneBuilder, dice: Dice, frame: Frame, half: tuple[Number, Number], levels: int
) -> list[Frame]:
    """Build an open shelf that faces -y; returns a frame for every board's middle."""
    scene.next_object()
    body = scene.add_material(one_of(dice, (wood, smooth, metal)))
    wide, deep = half
    gap = dice.uniform(0.4, 0.6)
    for side in (-1, 1):
        center = (side * wide, 0, gap * levels / 2)
        scene.add_convex(frame, "box", center, (0.02, deep, gap * levels / 2), body)
    for level in range(levels + 1):
        scene.add_convex(frame, "box", (0, 0, gap * level), (wide, deep, 0.015), body)
    if dice.chance(0.6):
        scene.add_convex(
            frame, "box", (0, deep, gap * levels / 2), (wide, 0.01, gap * levels / 2), body
        )
    return [frame.moved((0, 0, gap * level + 0.015), scale=gap) for level in range(levels)]


def book_row(scene: SceneBuilder, dice: Dice, frame: Frame, start: Number, stop: Number) -> None:
    """Stand books side by side along x."""
    scene.next_object()
    covers = [scene.add_material(one_of(dice, (printed, smooth, cloth))) for _ in range(3)]
    place = start
    while place < stop:
        half = (dice.uniform(0.04, 0.1), dice.uniform(0.2, 0.28), dice.uniform(0.28, 0.44))
        lean = dice.normal(0.03)
        center = (place + half[0], 0, half[2])
        scene.add_convex(frame, "box", center, half, dice.pick(covers), turned(0, lean))
        place += 2 * half[0] + 0.01


def picture(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Hang a framed picture on a wall behind the frame (which faces -y)."""
    scene.next_object()
    border, canvas = (
        scene.add_material(one_of(dice, (wood, metal, smooth))),
        scene.add_material(one_of(dice, (printed, cloth))),
    )
    half = (dice.uniform(0.25, 0.6), dice.uniform(0.2, 0.5))
    scene.add_convex(frame, "box", (0, 0, 0), (half[0] + 0.04, 0.02, half[1] + 0.04), border)
    scene.add_convex(frame, "box", (0, -0.01, 0), (half[0], 0.02, half[1]), canvas)


def facade(
    scene: SceneBuilder, dice: Dice, frame: Frame, half: tuple[Number, Number], rows: int
) -> None:
    """Build a house that faces -y: windows, cornices, door, roof; ``half`` is width and depth."""
    scene.next_object()
    detailed = scene.room_left(convex=50)
    wall = one_of(dice, (masonry, masonry, stone, plaster)) if detailed else painted_windows(dice)
    wall = scene.add_material(wall)
    trim = scene.add_material(one_of(dice, (stone, plaster)))
    storey = dice.uniform(0.55, 0.75)
    height = storey * rows / 2
    wide, deep = half
    scene.add_convex(frame, "box", (0, 0, height), (wide, deep, height), wall)
    scene.add_convex(frame, "box", (0, 0, 2 * height), (wide * 1.03, deep * 1.05, 0.05), trim)
    scene.add_convex(frame, "box", (0, 0, 0.08), (wide * 1.01, deep * 1.02, 0.08), trim)
    if detailed:
        _windows(scene, dice, frame.moved((0, -deep, 0)), (wide, storey), rows, trim)
    _roof(scene, dice, frame.moved((0, 0, 2 * height + 0.05)), half)


def _windows(
    scene: SceneBuilder, dice: Dice, front: Frame, size: tuple[Number, Number], rows: int, trim: int
) -> None:
    """Set windows into a wall that faces -y; the joints of a pane's pattern are its bars."""
    glass = scene.add_material(
        make_material(
            "brick",
            (0.12, 0.15, 0.2),
            (0.9, 0.9, 0.88),
            (0.2, 0.23, 0.3),
            frequency=11.5,
            detail=0.08,
            reflection=0.12,
            gloss=0.5,
            sharpness=100,
        )
    )
    wide, storey = size
    columns = max(2, round(2 * wide / dice.uniform(0.45, 0.7)))
    door = dice.integer(0, columns - 1)
    for row in range(rows):
        for column in range(columns):
            x = wide * (2 * (column + 0.5) / columns - 1)
            z = storey * (row + 0.52)
            pane = (0.09, 0.012, 0.17)
            if row == 0 and column == door:
                z, pane = 0.26, (0.12, 0.012, 0.26)
            scene.add_convex(front, "box", (x, 0, z), (pane[0] + 0.03, 0.015, pane[2] + 0.03), trim)
            scene.add_convex(front, "box", (x, -0.01, z), pane, glass)


def _roof(scene: SceneBuilder, dice: Dice, frame: Frame, half: tuple[Number, Number]) -> None:
    slate = make_material(
        "brick",
        shifted(dice, dice.pick(((0.33, 0.36, 0.42), (0.55, 0.28, 0.2), (0.4, 0.4, 0.4)))),
        (0.2, 0.2, 0.22),
        shifted(dice, (0.4, 0.4, 0.45), 0.1),
        frequency=dice.uniform(6, 12),
        aspect=dice.uniform(1, 2),
        detail=0.05,
        noise=dice.uniform(0.1, 0.4),
        gloss=0.2,
    )
    material = scene.add_material(slate)
    wide, deep = half
    rise = dice.uniform(0.15, 0.5)
    kind = dice.weighted([(3, "gable"), (3, "hip"), (1, "flat")])
    if kind == "gable":
        turn = turned(math.pi / 2)
        roof = (deep * 1.1, wide * 1.04, rise)
        scene.add_convex(frame, "gable", (0, 0, rise), roof, material, turn)
    elif kind == "hip":
        # A mansard: two boxes that lean would do, a steep vault looks the part.
        turn = turned(math.pi / 2)
        scene.add_convex(frame, "vault", (0, 0, rise), (deep, wide, rise), material, turn)
        for x in (-0.5, 0.0, 0.5):
            dormer = (x * wide, -deep * 0.75, rise * 0.8)
            scene.add_convex(frame, "gable", dormer, (0.1, 0.25, rise * 0.6), material)
    else:
        scene.add_convex(frame, "box", (0, 0, 0.02), (wide, deep, 0.04), material)
    if dice.chance(0.4):
        for side in (-1, 1):
            turret = min(wide, deep) * dice.uniform(0.3, 0.5)
            center = (side * wide * 0.9, -deep * 0.8, rise)
            scene.add_convex(frame, "cone", center, (turret, turret, rise * 1.6), material)
    for _ in range(dice.integer(0, 2)):
        chimney = (dice.uniform(-0.7, 0.7) * wide, dice.uniform(-0.2, 0.5) * deep, rise)
        scene.add_convex(frame, "box", chimney, (0.06, 0.06, rise * 1.2), material)


def column(scene: SceneBuilder, dice: Dice, frame: Frame, height: Number) -> None:
    """Build a pillar with base and capital."""
    scene.next_object()
    material = scene.add_material(one_of(dice, (stone, plaster, any_thing)))
    radius = dice.uniform(0.06, 0.14)
    scene.add_convex(frame, "cylinder", (0, 0, height / 2), (radius, radius, height / 2), material)
    for z in (0.04, height - 0.04):
        scene.add_convex(frame, "box", (0, 0, z), (radius * 1.4, radius * 1.4, 0.04), material)
