"""Random choices as a pure function of (seed, scene, purpose)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeVar

Choice = TypeVar("Choice")
Number = float | int
"""A number where a literal may well be 0 or 1."""


class Dice:
    """A stream of random choices. Equal keys give equal streams, on any machine.

    Only ``random.Random.random`` is used: Python guarantees its sequence across versions.
    """

    def __init__(self, *key: int | str) -> None:
        self._key = key
        self._random = random.Random("/".join(map(str, key))).random

    def child(self, *key: int | str) -> Dice:
        """Return an unrelated stream that does not depend on what was drawn from this one."""
        return Dice(*self._key, *key)

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
        """Be true with a probability."""
        return self._random() < probability

    def pick(self, options: Sequence[Choice]) -> Choice:
        """Pick one of several options, all alike."""
        return options[int(self._random() * len(options))]

    def weighted(self, options: Sequence[tuple[Number, Choice]]) -> Choice:
        """Pick one of several (weight, option) pairs."""
        mark = self._random() * sum(weight for weight, _ in options)
        for weight, option in options:
            mark -= weight
            if mark < 0:
                return option
        return options[-1][1]
