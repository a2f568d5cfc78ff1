"""Changes to all materials of a world: texture taken away, photographs put on."""

from __future__ import annotations

from dataclasses import replace

from datasets.procedural.dice import Dice
from datasets.procedural.materials import PATTERNS, Material


def made_plain(material: Material) -> Material:
    """Take the pattern and most of the variation off a material."""
    return replace(material, pattern=0.0, noise=0.15 * material.noise, bump=0.0)


def made_photo(material: Material, dice: Dice) -> Material:
    """Let a material wear a photograph."""
    return replace(
        material,
        pattern=float(PATTERNS.index("photo")),
        frequency=dice.log_uniform(0.3, 2.5),
        noise=min(material.noise, 0.1),
        seed=float(dice.integer(0, 9999)),
    )
