"""Materials: colours, a pattern and how the surface takes light.

Colours are given as a screen shows them and stored as light (linear).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from datasets.procedural.dice import Number

Colour = tuple[Number, Number, Number]

PATTERNS = (
    "plain",
    "marble",
    "wood",
    "brick",
    "checker",
    "stripes",
    "cloth",
    "glyphs",
    "cells",
    "speckle",
    "gradient",
    "planks",
    "dots",
    "collage",
    "windows",
    "grass",
    "floral",
    "photo",
)
"""Names of the patterns; a material stores the index."""


@dataclass(frozen=True)
class Material:
    """One row of the renderer's table. Frequencies are in periods per world unit."""

    red: Number = 0.5
    green: Number = 0.5
    blue: Number = 0.5
    red_2: Number = 0.5
    green_2: Number = 0.5
    blue_2: Number = 0.5
    red_3: Number = 0.5
    green_3: Number = 0.5
    blue_3: Number = 0.5
    pattern: Number = 0.0
    frequency: Number = 4.0
    aspect: Number = 1.0
    """Width of a pattern's cell by its height."""
    detail: Number = 0.1
    """The pattern's own parameter: width of mortar, share of dots, warp of rings."""
    noise: Number = 0.05
    """Strength of the multi-octave variation of brightness."""
    noise_frequency: Number = 3.0
    bump: Number = 0.0
    """Strength of the relief, seen in the shading only."""
    gloss: Number = 0.0
    """Strength of the highlights."""
    sharpness: Number = 30.0
    """Exponent of the highlights."""
    reflection: Number = 0.0
    """Share of the surroundings that is mirrored head-on; more at grazing angles."""
    emission: Number = 0.0
    """Light of its own, times the colour."""
    seed: Number = 0.0
    """Decides the pattern's random features, and which photograph is worn."""
    turn: Number = 0.0
    """Angle by which the pattern is turned on its surface."""


COLUMN = {field.name: index for index, field in enumerate(fields(Material))}
"""Place of each value in a row of the renderer's table."""


def linear(colour: Colour) -> Colour:
    """Turn a screen colour into light."""
    red, green, blue = (max(channel, 0.0) ** 2.2 for channel in colour)
    return red, green, blue


def make_material(
    pattern: str,
    first: Colour,
    second: Colour | None = None,
    third: Colour | None = None,
    **values: Number,
) -> Material:
    """Make a material from screen colours; absent colours repeat the ones before."""
    second = second or first
    third = third or second
    (r1, g1, b1), (r2, g2, b2), (r3, g3, b3) = linear(first), linear(second), linear(third)
    index = float(PATTERNS.index(pattern))
    return Material(r1, g1, b1, r2, g2, b2, r3, g3, b3, index, **values)
