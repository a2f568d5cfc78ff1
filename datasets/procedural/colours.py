"""Colours as things have them, as a screen shows them."""

from __future__ import annotations

import colorsys

from datasets.procedural.dice import Dice, Number
from datasets.procedural.materials import Colour


def any_colour(dice: Dice) -> Colour:
    """Draw a colour as things have them: mostly muted, now and then vivid."""
    saturation = dice.uniform(0.5, 0.9) if dice.chance(0.22) else dice.uniform(0.0, 0.5)
    return colorsys.hsv_to_rgb(dice.uniform(0, 1), saturation, dice.uniform(0.15, 0.95))


def shifted(dice: Dice, colour: Colour, amount: Number = 0.06) -> Colour:
    """Vary a colour: its brightness more than its hue."""
    scale = 1 + dice.uniform(-2.5 * amount, 2.5 * amount)
    red, green, blue = (
        min(max(channel * scale + dice.uniform(-amount, amount) * 0.6, 0.02), 0.97)
        for channel in colour
    )
    return red, green, blue


def darker(colour: Colour, factor: Number) -> Colour:
    """Scale a colour."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor
