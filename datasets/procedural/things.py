"""Things that stand on surfaces. Each is about one unit tall in the frame that it is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from datasets.procedural.dice import Dice, Number
from datasets.procedural.palette import any_thing, cloth, lamp, metal, one_of, printed, smooth
from datasets.procedural.placement import Frame, turned
from datasets.procedural.scene import SceneBuilder, frustum
from datasets.procedural.surfaces import stone, wood

Thing = Callable[[SceneBuilder, Dice, Frame], None]


def package(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a carton, a block, or a pile of a few."""
    height = 0.0
    for _ in range(dice.weighted([(4, 1), (2, 2), (1, 3)])):
        material = scene.add_material(one_of(dice, (printed, printed, wood, smooth, any_thing)))
        half = (dice.uniform(0.15, 0.45), dice.uniform(0.12, 0.4), dice.uniform(0.1, 0.45))
        turn = turned(dice.uniform(-0.4, 0.4))
        scene.add_convex(frame, "box", (0, 0, height + half[2]), half, material, turn)
        height += 2 * half[2]


def books(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a pile of books."""
    height = 0.0
    for _ in range(dice.integer(2, 5)):
        cover = scene.add_material(one_of(dice, (printed, smooth, cloth)))
        half = (dice.uniform(0.3, 0.45), dice.uniform(0.22, 0.32), dice.uniform(0.03, 0.08))
        turn = turned(dice.normal(0.25))
        scene.add_convex(frame, "box", (0, 0, height + half[2]), half, cover, turn)
        height += 2 * half[2]


def can(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a can or a jar with a label and a lid."""
    label = scene.add_material(printed(dice))
    lid = scene.add_material(one_of(dice, (metal, smooth)))
    radius, height = dice.uniform(0.2, 0.4), dice.uniform(0.3, 0.5)
    scene.add_convex(frame, "cylinder", (0, 0, height), (radius, radius, height), label)
    scene.add_convex(
        frame, "cylinder", (0, 0, 2 * height), (radius * 1.04, radius * 1.04, 0.04), lid
    )
    scene.add_convex(frame, "cylinder", (0, 0, 0.02), (radius * 1.03, radius * 1.03, 0.02), lid)


def bottle(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a bottle: body, shoulder, neck, cap."""
    body = scene.add_material(one_of(dice, (smooth, printed, smooth)))
    glass, cap = scene.add_material(smooth(dice)), scene.add_material(one_of(dice, (smooth, metal)))
    radius, height = dice.uniform(0.16, 0.26), dice.uniform(0.25, 0.36)
    neck, shoulder = radius * dice.uniform(0.25, 0.5), dice.uniform(0.08, 0.16)
    scene.add_convex(frame, "cylinder", (0, 0, height), (radius, radius, height), body)
    center = 2 * height + shoulder
    scene.add_convex(
        frame, frustum(neck / radius), (0, 0, center), (radius, radius, shoulder), glass
    )
    top = center + shoulder
    scene.add_convex(frame, "cylinder", (0, 0, top + 0.08), (neck, neck, 0.08), glass)
    scene.add_convex(frame, "cylinder", (0, 0, top + 0.18), (neck * 1.2, neck * 1.2, 0.04), cap)


def ball(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a ball, an egg or a fruit."""
    material = scene.add_material(any_thing(dice))
    radius = dice.uniform(0.2, 0.45)
    height = radius * dice.uniform(0.8, 1.3)
    turn = turned(dice.uniform(0, 6), 0, 0)
    scene.add_convex(frame, "ellipsoid", (0, 0, height), (radius, radius, height), material, turn)


def vase(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Turn a vase or a chess piece: frusta stacked along a random profile."""
    material = scene.add_material(one_of(dice, (smooth, stone, any_thing)))
    sections = dice.integer(3, 6)
    radii = [dice.uniform(0.1, 0.38) for _ in range(sections + 1)]
    height = 0.0
    for low, high in pairwise(radii):
        half = dice.uniform(0.06, 0.2)
        wide = max(low, high)
        shape = frustum(high / low) if high < low else _upside_down(low / high)
        scene.add_convex(frame, shape, (0, 0, height + half), (wide, wide, half), material)
        height += 2 * half
    if dice.chance(0.4):
        ball_radius = radii[-1] * 0.9
        size = (ball_radius, ball_radius, ball_radius)
        scene.add_convex(frame, "ellipsoid", (0, 0, height + 0.6 * ball_radius), size, material)


def _upside_down(bottom: Number) -> tuple[Number, Number, Number, Number, Number]:
    ax, ay, az, b, c = frustum(bottom)
    return (ax, ay, az, -b, c)


def bowl(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a bowl that is heaped with fruit."""
    material = scene.add_material(one_of(dice, (smooth, wood, metal)))
    radius = dice.uniform(0.35, 0.5)
    scene.add_convex(frame, "bowl", (0, 0, 0.16), (radius, radius, 0.16), material)
    fruit = scene.add_material(any_thing(dice))
    for index in range(dice.integer(2, 6)):
        angle, size = 1.2 * index + dice.uniform(0, 1), dice.uniform(0.1, 0.17)
        away = radius * dice.uniform(0.2, 0.55)
        center = (away * math.cos(angle), away * math.sin(angle), 0.3 + 0.3 * size)
        scene.add_convex(frame, "ellipsoid", center, (size, size, size), fruit)


def cone(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a cone, a dome or a pyramid-like toy."""
    material = scene.add_material(any_thing(dice))
    radius, half = dice.uniform(0.2, 0.4), dice.uniform(0.2, 0.5)
    shape = dice.pick(("cone", "dome", "paraboloid", "gable", "vault"))
    turn = turned(dice.uniform(0, 6))
    scene.add_convex(frame, shape, (0, 0, half), (radius, radius, half), material, turn)


def lamp_thing(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a table lamp: foot, rod, shade that shines."""
    foot, shade = (
        scene.add_material(one_of(dice, (metal, wood, smooth))),
        scene.add_material(lamp(dice)),
    )
    scene.add_convex(frame, "cylinder", (0, 0, 0.03), (0.2, 0.2, 0.03), foot)
    scene.add_convex(frame, "cylinder", (0, 0, 0.4), (0.03, 0.03, 0.4), foot)
    top = dice.uniform(0.4, 0.8)
    scene.add_convex(frame, frustum(top), (0, 0, 0.9), (0.3, 0.3, 0.18), shade)


def toy_house(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a model house with roof, chimney and windows."""
    wall = scene.add_material(any_thing(dice))
    roof, pane = scene.add_material(any_thing(dice)), scene.add_material(smooth(dice))
    wide, deep, high = dice.uniform(0.25, 0.45), dice.uniform(0.2, 0.35), dice.uniform(0.2, 0.35)
    scene.add_convex(frame, "box", (0, 0, high), (wide, deep, high), wall)
    rise, turn = dice.uniform(0.12, 0.25), turned(math.pi / 2)
    scene.add_convex(
        frame, "gable", (0, 0, 2 * high + rise), (deep * 1.15, wide * 1.1, rise), roof, turn
    )
    chimney = (wide * 0.5, 0.05, 2 * high + 1.5 * rise)
    scene.add_convex(frame, "box", chimney, (0.05, 0.05, rise), wall)
    for index in range(-1, 2):
        center = (index * wide * 0.6, -deep, high * 1.1)
        scene.add_convex(frame, "box", center, (0.05, 0.012, 0.08), pane)


def rods(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a tripod, a trestle or a bunch of pencils in a cup."""
    material = scene.add_material(one_of(dice, (wood, metal, smooth)))
    count, lean = dice.integer(3, 6), dice.uniform(0.1, 0.35)
    for index in range(count):
        turn = turned(2 * math.pi * index / count, lean)
        half = (0.025, 0.025, dice.uniform(0.35, 0.55))
        scene.add_convex(frame, "cylinder", (0, 0, half[2]), half, material, turn)
    if dice.chance(0.5):
        scene.add_convex(frame, "cylinder", (0, 0, 0.25), (0.18, 0.18, 0.25), material)


def wheel(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a plate, a clock or a disc that stands or lies."""
    material, rim = (
        scene.add_material(one_of(dice, (smooth, printed, metal))),
        scene.add_material(any_thing(dice)),
    )
    radius = dice.uniform(0.3, 0.5)
    lies = dice.chance(0.5)
    turn = turned() if lies else turned(dice.uniform(-0.5, 0.5), 0, math.pi / 2 - 0.2)
    center = (0.0, 0.0, 0.03 if lies else radius)
    scene.add_convex(frame, "cylinder", center, (radius, radius, 0.03), rim, turn)
    scene.add_convex(frame, "cylinder", center, (radius * 0.8, radius * 0.8, 0.034), material, turn)


THINGS: tuple[tuple[Number, Thing], ...] = (
    (4, package),
    (3, books),
    (3, can),
    (3, bottle),
    (2, ball),
    (3, vase),
    (2, bowl),
    (2, cone),
    (1, lamp_thing),
    (2, toy_house),
    (1.5, rods),
    (1, wheel),
)


def any_small_thing(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build one thing, drawn at random."""
    scene.next_object()
    dice.weighted(THINGS)(scene, dice, frame)
