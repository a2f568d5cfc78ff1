"""Random materials of what lies about: cloth, print, plastic, metal, fur, leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from datasets.procedural.colours import any_colour, darker, shifted
from datasets.procedural.dice import Dice, Number
from datasets.procedural.materials import Colour, Material, make_material
from datasets.procedural.surfaces import masonry, stone, wood

_COATS: tuple[Colour, ...] = (
    (0.62, 0.36, 0.18),
    (0.8, 0.7, 0.56),
    (0.45, 0.4, 0.38),
    (0.25, 0.2, 0.17),
    (0.85, 0.83, 0.8),
)


def cloth(dice: Dice) -> Material:
    """Draw a cloth: woven, striped, checked, dotted or flowered."""
    base = any_colour(dice)
    return make_material(
        dice.pick(("cloth", "stripes", "checker", "dots", "floral", "floral", "plain", "marble")),
        base,
        any_colour(dice),
        any_colour(dice),
        frequency=dice.log_uniform(2, 14),
        aspect=dice.uniform(0.7, 1.5),
        detail=dice.uniform(0.15, 0.5),
        noise=dice.uniform(0.05, 0.3),
        noise_frequency=dice.log_uniform(3, 25),
        bump=dice.uniform(0, 0.3),
        seed=dice.integer(0, 999),
        turn=dice.uniform(0, 3.14) if dice.chance(0.3) else 0.0,
    )


def printed(dice: Dice) -> Material:
    """Draw paper or packaging with print on it."""
    light = dice.chance(0.6)
    paper = shifted(dice, (0.92, 0.9, 0.86)) if light else any_colour(dice)
    ink = darker(any_colour(dice), 0.4) if light else shifted(dice, (0.92, 0.92, 0.9))
    return make_material(
        dice.weighted([(4, "glyphs"), (4, "collage"), (1, "stripes"), (1, "dots"), (2, "photo")]),
        paper,
        ink,
        any_colour(dice),
        frequency=dice.log_uniform(3, 12),
        aspect=dice.uniform(0.5, 0.9),
        detail=dice.uniform(0.2, 0.6),
        noise=dice.uniform(0.0, 0.12),
        gloss=dice.uniform(0, 0.4),
        sharpness=50,
        reflection=dice.uniform(0, 0.04),
        seed=dice.integer(0, 999),
    )


def smooth(dice: Dice) -> Material:
    """Draw plastic, lacquer or ceramics."""
    base = any_colour(dice)
    return make_material(
        dice.weighted([(4, "plain"), (1, "gradient"), (1, "speckle"), (1, "dots"), (1, "stripes")]),
        base,
        any_colour(dice),
        frequency=dice.log_uniform(2, 9),
        detail=dice.uniform(0.1, 0.4),
        noise=dice.uniform(0, 0.08),
        gloss=dice.uniform(0.2, 1.0),
        sharpness=dice.log_uniform(20, 300),
        reflection=dice.uniform(0.02, 0.08),
        seed=dice.integer(0, 999),
    )


def metal(dice: Dice) -> Material:
    """Draw a metal, from brushed to a mirror."""
    base = dice.pick(((0.75, 0.75, 0.77), (0.85, 0.7, 0.4), (0.8, 0.55, 0.42), (0.35, 0.36, 0.38)))
    return make_material(
        "plain",
        shifted(dice, base),
        noise=dice.uniform(0, 0.15),
        noise_frequency=dice.log_uniform(2, 30),
        gloss=dice.uniform(0.5, 1.5),
        sharpness=dice.log_uniform(30, 300),
        reflection=dice.uniform(0.2, 0.75),
        seed=dice.integer(0, 999),
    )


def fur(dice: Dice) -> Material:
    """Draw plush, fur or wool."""
    base = shifted(dice, dice.pick(_COATS))
    return make_material(
        dice.pick(("marble", "grass", "gradient")),
        base,
        shifted(dice, darker(base, dice.uniform(0.4, 0.8))),
        shifted(dice, base, 0.1),
        frequency=dice.log_uniform(2, 8),
        detail=dice.uniform(0.2, 0.5),
        noise=dice.uniform(0.2, 0.5),
        noise_frequency=dice.log_uniform(8, 25),
        bump=dice.uniform(0.2, 0.6),
        seed=dice.integer(0, 999),
    )


def leaf(dice: Dice) -> Material:
    """Draw the green of leaves, rarely autumn's."""
    base = dice.weighted([(8, (0.22, 0.42, 0.16)), (3, (0.4, 0.52, 0.2)), (1, (0.6, 0.3, 0.12))])
    base = shifted(dice, base, 0.09)
    return make_material(
        "gradient" if dice.chance(0.4) else "plain",
        base,
        shifted(dice, darker(base, 0.7)),
        frequency=dice.uniform(1, 3),
        noise=dice.uniform(0.1, 0.35),
        noise_frequency=dice.log_uniform(3, 15),
        gloss=dice.uniform(0.05, 0.5),
        sharpness=dice.log_uniform(8, 40),
        seed=dice.integer(0, 999),
    )


def lamp(dice: Dice) -> Material:
    """Draw something that shines."""
    colour = dice.pick(((1.0, 0.95, 0.85), (1.0, 0.85, 0.65), (0.9, 0.95, 1.0)))
    return make_material("plain", colour, noise=0.0, emission=dice.uniform(1.0, 3.0))


_THINGS: tuple[tuple[Number, Callable[[Dice], Material]], ...] = (
    (3, printed),
    (3, smooth),
    (2, cloth),
    (2, wood),
    (1, metal),
    (1, stone),
    (1, fur),
    (0.5, masonry),
)


def any_thing(dice: Dice) -> Material:
    """Draw a material that an object may be made of."""
    return dice.weighted(_THINGS)(dice)


def one_of(dice: Dice, kinds: Sequence[Callable[[Dice], Material]]) -> Material:
    """Draw a material from one of several kinds."""
    return dice.pick(kinds)(dice)
