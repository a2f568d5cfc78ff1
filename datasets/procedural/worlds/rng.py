"""Random choices as a pure function of (seed, scene, purpose)."""

from __future__ import annotations

import colorsys
import math
import random
from typing import Any

from datasets.procedural.renderer.textures import Colour, Number


class Rng:
    """A stream of random choices. Equal keys give equal streams, on any machine.

    Only ``random.Random.random`` is used: Python guarantees its sequence across versions.
    """

    def __init__(self, *key: int | str) -> None:
        self._key = key
        self._random = random.Random("/".join(map(str, key))).random

    def child(self, *key: int | str) -> Rng:
        """Return an unrelated stream that does not depend on what was drawn from this one."""
        return Rng(*self._key, *key)

    def uniform(self, low: Number, high: Number) -> float:
        """Draw a number between two bounds."""
        return low + (high - low) * self._random()

    def log_uniform(self, low: Number, high: Number) -> float:
        """Draw a positive number whose logarithm is uniform."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def normal(self, spread: Number) -> float:
        """Draw from a normal distribution around 0."""
        radius = math.sqrt(-2 * math.log(1 - self._random()))
        return spread * radius * math.cos(2 * math.pi * self._random())

    def integer(self, low: int, high: int) -> int:
        """Draw an integer; both bounds are included."""
        return low + int(self._random() * (high - low + 1))

    def chance(self, probability: Number) -> bool:
        """Return true with a probability."""
        return self._random() < probability

    def pick(self, *options: Any) -> Any:  # noqa: ANN401
        """Pick one of several options; a single one is a sequence, or words of a text."""
        several = options[0] if len(options) == 1 else options
        several = several.split() if isinstance(several, str) else several
        return several[int(self._random() * len(several))]

    def weighted(self, options: list[tuple[Number, str]]) -> str:
        """Pick one of several (weight, option) pairs."""
        mark = self._random() * sum(weight for weight, _ in options)
        for weight, option in options:
            mark -= weight
            if mark < 0:
                return option
        return options[-1][1]

    def colour(self) -> Colour:
        """Draw a screen colour: mostly muted, now and then vivid."""
        saturation = self.uniform(0.5, 0.9) if self.chance(0.22) else self.uniform(0.0, 0.5)
        return colorsys.hsv_to_rgb(self.uniform(0, 1), saturation, self.uniform(0.15, 0.95))

    def shifted(self, colour: Colour, amount: Number = 0.06) -> Colour:
        """Vary a colour: its brightness more than its hue."""
        scale = 1 + self.uniform(-2.5 * amount, 2.5 * amount)
        red, green, blue = (
            min(max(channel * scale + self.uniform(-amount, amount) * 0.6, 0.02), 0.97)
            for channel in colour
        )
        return red, green, blue
