"""Settings as frozen dataclasses whose annotations say which values are allowed.

``batch_size: Count = 2048`` is a whole number from 1; ``Settings`` checks it on construction.
Modules that define settings do not import torch, so that ``--help`` answers at once.
"""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any


@dataclass(frozen=True)
class Within:
    """Bounds of a number, or of each number of a tuple."""

    low: float | int = -math.inf
    high: float | int = math.inf
    above: bool = False
    """Whether ``low`` itself is excluded."""
    below: bool = False
    """Whether ``high`` itself is excluded."""
    multiple: int = 1
    """Whole numbers must be multiples of this."""

    def problem(self, value: Any) -> str | None:  # noqa: ANN401
        """Return what is wrong with a value, or None."""
        numbers = value if isinstance(value, tuple) else (value,)
        high_enough = all(n > self.low if self.above else n >= self.low for n in numbers)
        low_enough = all(n < self.high if self.below else n <= self.high for n in numbers)
        if high_enough and low_enough:
            whole = self.multiple == 1 or all(n % self.multiple == 0 for n in numbers)
            return None if whole else f"must be a multiple of {self.multiple}"
        if self.high == math.inf:
            return f"must be {'more than ' if self.above else 'at least '}{self.low:g}"
        left, right = "(" if self.above else "[", ")" if self.below else "]"
        return f"must lie in {left}{self.low:g}, {self.high:g}{right}"


@dataclass(frozen=True)
class Length:
    """How many numbers a tuple takes."""

    allowed: tuple[int, ...]

    def problem(self, value: Any) -> str | None:  # noqa: ANN401
        """Return what is wrong with a value, or None."""
        if len(value) in self.allowed:
            return None
        return f"takes {' or '.join(str(n) for n in self.allowed if n)} numbers"


@dataclass(frozen=True)
class Alias:
    """Earlier names of a setting: flags, and keys in files, that still work."""

    names: tuple[str, ...]


Count = Annotated[int, Within(1)]
NonNegativeInt = Annotated[int, Within(0)]
Positive = Annotated[float, Within(0, math.inf, above=True, below=True)]
NonNegative = Annotated[float, Within(0, math.inf, below=True)]
Share = Annotated[float, Within(0, 1)]
OptionalSize = Annotated[tuple[int, ...], Length((0, 2)), Within(1)]
"""Height and width, or nothing."""
OptionalRange = Annotated[tuple[float, ...], Length((0, 2)), Within(0, math.inf, True, True)]
"""Nearest and farthest depth, or nothing."""


class Settings:
    """Base of frozen dataclasses of settings: construction checks the annotated bounds.

    A subclass with rules across fields defines ``__post_init__`` and calls this one first. Errors
    are ``ValueError`` and name the setting and its value.
    """

    def __post_init__(self) -> None:
        """Check every annotated bound."""
        for name, rules in _rules(type(self)):
            value = getattr(self, name)
            if value is None:
                continue
            for rule in rules:
                if problem := rule.problem(value):
                    raise ValueError(f"{name}={value!r} {problem}")


def aliases(settings_class: type) -> dict[str, tuple[str, ...]]:
    """Return the earlier names of the fields that have some."""
    hints = typing.get_type_hints(settings_class, include_extras=True)
    found = {name: _annotated(hint, Alias) for name, hint in hints.items()}
    return {name: rules[0].names for name, rules in found.items() if rules}


@cache
def _rules(settings_class: type) -> list[tuple[str, list[Within | Length]]]:
    hints = typing.get_type_hints(settings_class, include_extras=True)
    found = [(name, _annotated(hint, Within | Length)) for name, hint in hints.items()]
    return [(name, rules) for name, rules in found if rules]


def _annotated(hint: Any, kind: Any) -> list[Any]:  # noqa: ANN401
    """Return the annotations of one kind, also inside ``X | None``."""
    own = [rule for rule in getattr(hint, "__metadata__", ()) if isinstance(rule, kind)]
    return own or [rule for part in typing.get_args(hint) for rule in _annotated(part, kind)]
