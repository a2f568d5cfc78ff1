"""Lamps and skies: mostly from above, as the world is lit."""

from __future__ import annotations

import math
from dataclasses import replace

from datasets.procedural.dice import Dice, Number
from datasets.procedural.materials import linear
from datasets.procedural.placement import Vector
from datasets.procedural.scene import Backdrop, Light, SceneBuilder

LIGHTS = 3
"""Every scene has this many; some may be dark."""
_WARM: Vector = (1.0, 0.86, 0.68)
_WHITE: Vector = (1.0, 1.0, 0.98)
_COOL: Vector = (0.86, 0.93, 1.0)


def _scaled(colour: Vector, strength: Number) -> Vector:
    return colour[0] * strength, colour[1] * strength, colour[2] * strength


def _lamp(
    dice: Dice, subject: Vector, azimuth: Number, reach: tuple[Number, Number], strength: Number
) -> Light:
    """Hang a lamp above a subject; ``reach`` is its distance and elevation."""
    distance, elevation = reach
    position = (
        subject[0] + distance * math.cos(elevation) * math.cos(azimuth),
        subject[1] + distance * math.cos(elevation) * math.sin(azimuth),
        subject[2] + distance * math.sin(elevation),
    )
    colour = _scaled(dice.pick((_WARM, _WHITE, _WHITE, _COOL)), strength)
    return Light(position, distance * dice.log_uniform(0.012, 0.08), colour)


def studio_lights(scene: SceneBuilder, dice: Dice, subject: Vector, distance: Number) -> None:
    """Light a set: a key lamp, a fill lamp, a rim lamp."""
    azimuth = dice.uniform(0, 2 * math.pi)
    key = dice.uniform(0.7, 1.3)
    for strength, turn in ((key, 0.0), (key * dice.uniform(0.1, 0.7), 2.2), (0.2 * key, 4.0)):
        elevation = dice.uniform(0.5, 1.35)
        reach = (distance * dice.uniform(0.8, 1.6), elevation)
        around = azimuth + turn + dice.uniform(-0.5, 0.5)
        scene.lights.append(_lamp(dice, subject, around, reach, strength))


def studio_backdrop(scene: SceneBuilder, dice: Dice) -> None:
    """Choose black, white, grey or a soft gradient behind the subject."""
    kind = dice.weighted([(5, "black"), (2, "white"), (2, "grey"), (1, "gradient")])
    shade = {"black": 0.0, "white": 1.0, "grey": dice.uniform(0.15, 0.7), "gradient": 0.5}[kind]
    if kind == "black":
        shade = dice.uniform(0.0, 0.08)
    plain = linear((shade, shade, shade))
    zenith = linear((0.9, 0.9, 0.9)) if kind == "gradient" else plain
    ambient = _scaled(_WHITE, dice.uniform(0.15, 0.5))
    scene.backdrop = Backdrop(zenith, plain, plain, 0.0, 0.0, ambient)


def room_lights(scene: SceneBuilder, dice: Dice, subject: Vector) -> None:
    """Light a room: lamps below the ceiling, daylight from one side."""
    low, high = scene.shell_box
    daylight = dice.uniform(0.1, 0.9)
    x = dice.uniform(0.2, 0.8) * (high[0] - low[0]) + low[0]
    y = dice.uniform(0.2, 0.8) * (high[1] - low[1]) + low[1]
    tint = dice.pick((_WARM, _WHITE, _WHITE, _COOL))
    ceiling = Light(
        (x, y, high[2] - 0.15), dice.uniform(0.04, 0.14), _scaled(tint, 1.1 - 0.6 * daylight)
    )
    side = dice.pick((low[0] + 0.1, high[0] - 0.1))
    window = Light(
        (side, dice.uniform(low[1], high[1]) * 0.6, high[2] * dice.uniform(0.5, 0.8)),
        dice.uniform(0.06, 0.2),
        _scaled(_COOL, daylight),
    )
    glow = Light((subject[0], subject[1], high[2] - 0.1), 0.1, _scaled(tint, 0.25))
    scene.lights += [ceiling, window, glow]
    wall = dice.uniform(0.3, 0.6)
    ambient = _scaled(dice.pick((_WHITE, _WARM, _COOL)), dice.uniform(0.25, 0.6))
    scene.backdrop = Backdrop(
        zenith=(0.7, 0.7, 0.68),
        horizon=(wall, wall * 0.95, wall * 0.88),
        ground=(0.25, 0.2, 0.16),
        ambient=ambient,
    )


def daylight(scene: SceneBuilder, dice: Dice, subject: Vector) -> None:
    """Light the outdoors: sun and sky, clear or overcast."""
    overcast = dice.chance(0.3)
    sun = dice.uniform(0.05, 0.3) if overcast else dice.uniform(1.2, 2.4)
    azimuth, elevation = -math.pi / 2 + dice.normal(0.9), dice.uniform(0.45, 1.25)
    light = _lamp(dice, subject, azimuth, (400.0, elevation), 1.0)
    radius = dice.uniform(15, 40) if overcast else dice.uniform(2, 8)
    dark = Light((0.0, 0.0, 50.0), 1.0, (0.0, 0.0, 0.0))
    colour = _scaled((1.0, 0.93, 0.8), sun)
    scene.lights += [replace(light, radius=radius, colour=colour), dark, dark]
    zenith = linear((0.75, 0.77, 0.8)) if overcast else linear((0.3, 0.52, 0.85))
    horizon = linear((0.85, 0.87, 0.88)) if overcast else linear((0.75, 0.84, 0.92))
    sky = dice.uniform(0.8, 1.2) if overcast else dice.uniform(0.35, 0.6)
    scene.backdrop = Backdrop(
        zenith=zenith,
        horizon=horizon,
        ground=(0.25, 0.23, 0.18),
        clouds=dice.uniform(0, 1),
        haze=dice.uniform(0.0, 0.006),
        ambient=_scaled(_COOL, sky),
    )


def relit(light: Light, dice: Dice, amount: Number) -> Light:
    """Vary a lamp's strength."""
    return replace(light, colour=_scaled(light.colour, math.exp(dice.normal(amount))))


def light_rows(lights: list[Light], subject: Vector) -> list[list[Number]]:
    """Lay lamps out as ``shading.LightSamples`` has them."""
    rows = []
    for light in lights[:LIGHTS]:
        squared = sum((a - b) ** 2 for a, b in zip(light.position, subject, strict=True))
        rows.append([*light.position, light.radius, *light.colour, squared])
    rows += [[0.0, 0.0, 50.0, 1.0, 0.0, 0.0, 0.0, 2500.0]] * (LIGHTS - len(rows))
    return rows
