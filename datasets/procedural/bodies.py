"""Rounded and blended bodies: figures, skulls, rocks, rings, soft furniture."""

from __future__ import annotations

import math

from datasets.procedural.dice import Dice, Number
from datasets.procedural.palette import any_thing, fur, metal, one_of, smooth
from datasets.procedural.placement import Frame, Vector, along, turned
from datasets.procedural.scene import SceneBuilder
from datasets.procedural.surfaces import stone


def _limb(
    scene: SceneBuilder, frame: Frame, start: Vector, end: Vector, radius: Number, material: int
) -> None:
    """Add a capsule between two points."""
    step = tuple(b - a for a, b in zip(start, end, strict=True))
    center = tuple(0.5 * (a + b) for a, b in zip(start, end, strict=True))
    half = 0.5 * math.hypot(*step)
    scene.add_blob(frame, center, (half, 0, 0), radius, material, along(step))  # pyright: ignore[reportArgumentType]


def plush(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a stuffed animal: body, head, muzzle, ears, limbs."""
    scene.blend = dice.uniform(0.015, 0.04) * frame.scale
    coat, light = scene.add_material(fur(dice)), scene.add_material(fur(dice))
    body, head = dice.uniform(0.18, 0.26), dice.uniform(0.16, 0.22)
    neck = 2 * body + 0.75 * head
    scene.add_blob(frame, (0, 0, body), (0, 0, 0.06), body, coat)
    scene.add_blob(frame, (0, -0.02, neck), (0.04, 0, 0), head, coat)
    muzzle = (0, -head * 1.1, neck - 0.05)
    _limb(scene, frame, (0, -head * 0.6, neck - 0.03), muzzle, head * 0.4, light)
    for side in (-1, 1):
        tip = (side * head * dice.uniform(0.8, 1.1), 0, neck + head * dice.uniform(0.9, 1.5))
        _limb(scene, frame, (side * head * 0.7, 0, neck + 0.7 * head), tip, 0.05, coat)
        foot = (side * body * 1.1, -body * dice.uniform(0.8, 1.5), 0.08)
        _limb(scene, frame, (side * body * 0.7, 0, 0.1), foot, 0.08, light)
        hand = (side * body * dice.uniform(1.1, 1.6), -body * dice.uniform(0.2, 1.0), body)
        _limb(scene, frame, (side * body * 0.8, 0, 1.6 * body), hand, 0.07, coat)
    dark = scene.add_material(smooth(dice))
    for side in (-1, 1):
        eye = (side * head * 0.45, -head * 0.95, neck + 0.05)
        scene.add_convex(frame, "ellipsoid", eye, (0.03, 0.03, 0.03), dark)


def bust(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a head-like body with brow, cheeks and hollow-looking dark eyes."""
    scene.blend = dice.uniform(0.01, 0.03) * frame.scale
    bone = one_of(dice, (stone, smooth, stone))
    material, dark = scene.add_material(bone), scene.add_material(any_thing(dice))
    scene.add_blob(frame, (0, 0.05, 0.66), (0.02, 0.1, 0.02), 0.28, material)
    scene.add_blob(frame, (0, -0.18, 0.42), (0.08, 0.02, 0.08), 0.1, material)
    scene.add_blob(frame, (0, -0.16, 0.24), (0.09, 0.06, 0.02), 0.08, material)
    for side in (-1, 1):
        _limb(scene, frame, (side * 0.05, -0.27, 0.62), (side * 0.2, -0.2, 0.62), 0.045, material)
        _limb(scene, frame, (side * 0.12, -0.24, 0.45), (side * 0.26, -0.02, 0.48), 0.04, material)
        _limb(scene, frame, (side * 0.1, -0.18, 0.2), (side * 0.2, 0.05, 0.4), 0.05, material)
        eye = (side * 0.12, -0.225, 0.54)
        scene.add_convex(frame, "ellipsoid", eye, (0.06, 0.05, 0.05), dark)
    _limb(scene, frame, (0, 0.05, 0.05), (0, 0.08, 0.4), 0.12, material)
    scene.add_blob(frame, (0, 0.03, 0.04), (0.18, 0.14, 0.0), 0.04, material)


def rock(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a boulder or a lump of melted shapes."""
    scene.blend = dice.uniform(0.02, 0.07) * frame.scale
    kind = one_of(dice, (stone, stone, any_thing))
    material, other = scene.add_material(kind), scene.add_material(any_thing(dice))
    scene.add_blob(frame, (0, 0, 0.12), (0.18, 0.16, 0.08), 0.06, material)
    for index in range(dice.integer(4, 7)):
        angle, away = dice.uniform(0, 6.3), dice.uniform(0, 0.28)
        center = (away * math.cos(angle), away * math.sin(angle), dice.uniform(0.12, 0.55))
        core = (dice.uniform(0.02, 0.16), dice.uniform(0.02, 0.16), dice.uniform(0.02, 0.16))
        turn = turned(dice.uniform(0, 6), dice.uniform(-1, 1), dice.uniform(-1, 1))
        chosen = other if index == 0 and dice.chance(0.4) else material
        scene.add_blob(frame, center, core, dice.uniform(0.03, 0.13), chosen, turn)


def rings(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a pile of rings, or rings that stand."""
    scene.blend = dice.uniform(0.004, 0.03) * frame.scale
    height = 0.0
    for _ in range(dice.integer(2, 4)):
        material = scene.add_material(one_of(dice, (smooth, any_thing, metal)))
        thick, ring = dice.uniform(0.06, 0.12), dice.uniform(0.18, 0.34)
        if dice.chance(0.3):
            turn = turned(dice.uniform(0, 3), 0, math.pi / 2)
            center = (dice.uniform(-0.3, 0.3), dice.uniform(-0.3, 0.3), ring + thick)
            scene.add_blob(frame, center, (0, 0, 0), thick, material, turn, ring)
        else:
            center = (dice.normal(0.03), dice.normal(0.03), height + thick)
            scene.add_blob(frame, center, (0, 0, 0), thick, material, ring=ring)
            height += 2 * thick


def mug(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a mug or a teapot: rounded body, handle, spout, knob."""
    scene.blend = dice.uniform(0.006, 0.02) * frame.scale
    material = scene.add_material(one_of(dice, (smooth, smooth, metal, any_thing)))
    wide, high = dice.uniform(0.16, 0.24), dice.uniform(0.1, 0.25)
    scene.add_blob(frame, (0, 0, high + wide), (0.03, 0.03, high), wide, material)
    handle = (wide + 0.04, 0, high + wide)
    turn = turned(0, 0, math.pi / 2)
    scene.add_blob(frame, handle, (0, 0, 0), 0.035, material, turn, ring=0.17)
    if dice.chance(0.5):
        tip = (-wide - 0.3, 0, 2 * high + wide)
        _limb(scene, frame, (-wide, 0, high + 0.1), tip, 0.045, material)
        scene.add_blob(frame, (0, 0, 2 * (high + wide) + 0.03), (0, 0, 0.02), 0.05, material)


def gadget(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build a rounded device: a camera, a radio, a toy car."""
    scene.blend = dice.uniform(0.004, 0.012) * frame.scale
    shell, detail = (
        scene.add_material(one_of(dice, (smooth, any_thing))),
        scene.add_material(smooth(dice)),
    )
    half = (dice.uniform(0.25, 0.42), dice.uniform(0.12, 0.22), dice.uniform(0.1, 0.22))
    scene.add_blob(frame, (0, 0, half[2] + 0.1), half, 0.05, shell)
    if dice.chance(0.6):
        top = (half[0] * 0.5, half[1] * 0.8, 0.08)
        scene.add_blob(frame, (0, 0, 2 * half[2] + 0.2), top, 0.05, shell)
    turn = turned(0, 0, math.pi / 2)
    for side in (-1, 1):
        for face in (-1, 1):
            place = (side * half[0] * 0.6, face * (half[1] + 0.05), 0.11)
            scene.add_blob(frame, place, (0, 0, 0), 0.035, detail, turn, ring=0.075)


HEROES = (plush, plush, bust, bust, rock, rings, mug, gadget)
"""Blended bodies; a scene has room for one or two."""


def any_hero(scene: SceneBuilder, dice: Dice, frame: Frame) -> None:
    """Build one blended body, drawn at random."""
    scene.next_object()
    dice.pick(HEROES)(scene, dice, frame)


def rolling_ground(
    scene: SceneBuilder, dice: Dice, level: Number, swing: Number, size: Number
) -> None:
    """Make the floor a height field of waves: dunes, lawns, draped cloth.

    ``swing`` is its height and ``size`` the length of the longest wave.
    """
    scene.relief_level = level
    for index in range(6):
        length = size / 1.6**index
        angle = dice.uniform(0, 2 * math.pi)
        frequency = 2 * math.pi / length
        scene.relief_waves.append(
            [
                frequency * math.cos(angle),
                frequency * math.sin(angle),
                dice.uniform(0, 6.3),
                0.3 * swing * 0.6**index,
            ]
        )
