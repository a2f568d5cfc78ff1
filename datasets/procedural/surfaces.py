"""Random materials of what is built: wood, plaster, stone, masonry, paper on walls, the ground."""

from __future__ import annotations

from datasets.procedural.colours import any_colour, darker, shifted
from datasets.procedural.dice import Dice
from datasets.procedural.materials import Colour, Material, make_material

_WOODS: tuple[Colour, ...] = (
    (0.55, 0.36, 0.22),
    (0.72, 0.53, 0.34),
    (0.38, 0.24, 0.15),
    (0.80, 0.66, 0.48),
    (0.48, 0.26, 0.16),
)
_WALLS: tuple[Colour, ...] = (
    (0.90, 0.88, 0.84),
    (0.82, 0.78, 0.70),
    (0.75, 0.77, 0.78),
    (0.86, 0.80, 0.66),
    (0.66, 0.72, 0.70),
    (0.62, 0.58, 0.55),
    (0.93, 0.93, 0.92),
)
_STONES: tuple[Colour, ...] = (
    (0.60, 0.58, 0.54),
    (0.74, 0.69, 0.60),
    (0.50, 0.50, 0.50),
    (0.66, 0.60, 0.52),
)
_BRICKS: tuple[Colour, ...] = (
    (0.6, 0.28, 0.2),
    (0.7, 0.5, 0.36),
    (0.66, 0.62, 0.56),
    (0.5, 0.2, 0.15),
    (0.76, 0.7, 0.6),
)


def wood(dice: Dice) -> Material:
    """Draw a wood, raw or varnished; sometimes laid as planks."""
    base = shifted(dice, dice.pick(_WOODS))
    planks = dice.chance(0.35)
    return make_material(
        "planks" if planks else "wood",
        base,
        darker(base, dice.uniform(0.55, 0.85)),
        darker(base, dice.uniform(0.3, 0.6)),
        frequency=dice.uniform(2, 5) if planks else dice.uniform(3, 9),
        aspect=dice.uniform(5, 9),
        detail=dice.uniform(0.2, 1.0),
        noise=dice.uniform(0.05, 0.25),
        noise_frequency=dice.uniform(4, 15),
        gloss=dice.uniform(0.0, 0.4),
        sharpness=dice.log_uniform(10, 80),
        reflection=dice.uniform(0.0, 0.05),
        bump=dice.uniform(0, 0.1),
        seed=dice.integer(0, 999),
        turn=dice.pick((0.0, 1.5708)),
    )


def plaster(dice: Dice) -> Material:
    """Draw a painted wall: nearly nothing to see on it."""
    return make_material(
        "plain",
        shifted(dice, dice.pick(_WALLS)),
        noise=dice.uniform(0.0, 0.06),
        noise_frequency=dice.log_uniform(0.4, 6),
        bump=dice.uniform(0, 0.06) if dice.chance(0.4) else 0.0,
        seed=dice.integer(0, 999),
    )


def stone(dice: Dice) -> Material:
    """Draw concrete, marble, pebbles or rough stone."""
    base = shifted(dice, dice.pick(_STONES))
    return make_material(
        dice.pick(("marble", "speckle", "cells", "plain")),
        base,
        darker(base, dice.uniform(0.5, 0.9)),
        shifted(dice, base, 0.12),
        frequency=dice.log_uniform(1.5, 10),
        detail=dice.uniform(0.1, 0.4),
        noise=dice.uniform(0.1, 0.5),
        noise_frequency=dice.log_uniform(2, 14),
        bump=dice.uniform(0.05, 0.35),
        gloss=dice.uniform(0, 0.2),
        seed=dice.integer(0, 999),
    )


def masonry(dice: Dice) -> Material:
    """Draw bricks or tiles with joints."""
    tiles = dice.chance(0.45)
    if tiles:
        base = any_colour(dice) if dice.chance(0.3) else shifted(dice, dice.pick(_STONES + _WALLS))
    else:
        base = shifted(dice, dice.pick(_BRICKS))
    return make_material(
        "brick",
        base,
        dice.pick(((0.8, 0.78, 0.74), (0.55, 0.53, 0.5), darker(base, 0.4))),
        shifted(dice, base, 0.1),
        frequency=dice.uniform(1.2, 4) if tiles else dice.uniform(4, 9),
        aspect=1.0 if tiles else dice.uniform(2, 3.2),
        detail=dice.uniform(0.02, 0.09),
        noise=dice.uniform(0.05, 0.35),
        noise_frequency=dice.log_uniform(3, 20),
        bump=dice.uniform(0, 0.15),
        gloss=dice.uniform(0, 0.5) if tiles else 0.0,
        reflection=0.04 if tiles else 0.0,
        sharpness=60,
        seed=dice.integer(0, 999),
    )


def wallpaper(dice: Dice) -> Material:
    """Draw a papered wall."""
    base = shifted(dice, dice.pick(_WALLS))
    return make_material(
        dice.pick(("floral", "floral", "stripes", "dots", "cells")),
        base,
        any_colour(dice),
        any_colour(dice),
        frequency=dice.log_uniform(0.8, 5),
        detail=dice.uniform(0.15, 0.45),
        noise=dice.uniform(0.02, 0.1),
        seed=dice.integer(0, 999),
    )


def ground(dice: Dice) -> Material:
    """Draw an outdoor floor: grass, gravel, paving, asphalt, sand."""
    kind, base = dice.weighted(
        [
            (3, ("grass", (0.3, 0.42, 0.16))),
            (2, ("speckle", (0.55, 0.52, 0.48))),
            (2, ("brick", (0.6, 0.57, 0.53))),
            (1, ("plain", (0.34, 0.34, 0.35))),
            (1, ("marble", (0.7, 0.62, 0.48))),
            (2, ("cells", (0.5, 0.48, 0.45))),
        ]
    )
    base = shifted(dice, base)
    return make_material(
        kind,
        base,
        darker(base, dice.uniform(0.5, 0.85)),
        shifted(dice, base, 0.12),
        frequency=dice.log_uniform(0.7, 5),
        aspect=dice.uniform(1, 2.2),
        detail=dice.uniform(0.03, 0.3),
        noise=dice.uniform(0.2, 0.6),
        noise_frequency=dice.log_uniform(0.5, 6),
        bump=dice.uniform(0.05, 0.3),
        seed=dice.integer(0, 999),
    )


def painted_windows(dice: Dice) -> Material:
    """Draw the wall of a distant building, windows included."""
    base = shifted(dice, dice.pick(_STONES + ((0.6, 0.28, 0.2), (0.8, 0.76, 0.68))), 0.1)
    return make_material(
        "windows",
        base,
        (0.15, 0.18, 0.24),
        shifted(dice, (0.85, 0.84, 0.8)),
        frequency=dice.uniform(1.2, 2.2),
        aspect=dice.uniform(0.7, 1.2),
        noise=dice.uniform(0.05, 0.3),
        noise_frequency=dice.log_uniform(1, 8),
        seed=dice.integer(0, 999),
    )
