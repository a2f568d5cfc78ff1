"""Base class and annotated types for frozen dataclasses of settings.

``batch_size: Count = 2048`` is an integer from 1; ``Settings`` checks it on construction. Modules
that define settings do not import torch, so that ``--help`` is fast.
"""

from __future__ import annotations

import math
import reprlib
import typing
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

_MAX_INT = 2**31 - 1


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
    """Integers must be multiples of this."""

    def problem(self, value: Any) -> str | None:  # noqa: ANN401
        """Return the problem with a value, or None."""
        numbers = value if isinstance(value, tuple) else (value,)
        high_enough = all(n > self.low if self.above else n >= self.low for n in numbers)
        low_enough = all(n < self.high if self.below else n <= self.high for n in numbers)
        if high_enough and low_enough:
            divisible = self.multiple == 1 or all(n % self.multiple == 0 for n in numbers)
            return None if divisible else f"must be a multiple of {self.multiple}"
        if self.high == math.inf or (not high_enough and all(isinstance(n, int) for n in numbers)):
            return f"must be {'more than ' if self.above else 'at least '}{self.low:g}"
        left, right = "(" if self.above else "[", ")" if self.below else "]"
        return f"must lie in {left}{self.low:g}, {self.high:.10g}{right}"


@dataclass(frozen=True)
class Length:
    """Allowed lengths of a tuple."""

    allowed: tuple[int, ...]

    def problem(self, value: Any) -> str | None:  # noqa: ANN401
        """Return the problem with a value, or None."""
        if len(value) in self.allowed:
            return None
        return f"takes {' or '.join(str(n) for n in self.allowed if n)} numbers"


@dataclass(frozen=True)
class Alias:
    """Other names of a setting, accepted as flags and as keys of files."""

    names: tuple[str, ...]


Count = Annotated[int, Within(1, _MAX_INT)]
NonNegativeInt = Annotated[int, Within(0, _MAX_INT)]
MAX_CHANNELS = 4096
"""Channels of a network layer."""
Channels = Annotated[int, Within(1, MAX_CHANNELS)]
Layers = Annotated[int, Within(0, 64)]
Planes = Annotated[int, Within(2, 4096)]
"""Depth planes, or samples on a ray."""
Stages = Length(tuple(range(1, 9)))
"""One number for each resolution of a network."""
Positive = Annotated[float, Within(0, math.inf, above=True, below=True)]
NonNegative = Annotated[float, Within(0, math.inf, below=True)]
Rate = Annotated[float, Within(0, 10, above=True)]
"""Learning rate."""
Weight = Annotated[float, Within(0, 1e6)]
"""Weight of a loss term."""
Share = Annotated[float, Within(0, 1)]
OptionalSize = Annotated[tuple[int, ...], Length((0, 2)), Within(1, 1 << 15)]
"""Height and width, or empty."""
OptionalRange = Annotated[tuple[float, ...], Length((0, 2)), Within(0, math.inf, True, True)]
"""Nearest and farthest depth, or empty."""


class Settings:
    """Base class of frozen dataclasses that checks the annotated bounds on construction.

    A subclass with rules across fields defines ``__post_init__`` and calls this one first.
    """

    def __post_init__(self) -> None:
        """Raise ``ValueError`` that names the setting and its value if a bound is violated."""
        for name, rules in _rules(type(self)):
            value = getattr(self, name)
            if value is None:
                continue
            for rule in rules:
                if problem := rule.problem(value):
                    raise ValueError(f"{name}={reprlib.repr(value)} {problem}")


def has_type(value: object, hint: Any) -> bool:  # noqa: ANN401
    """Return whether a value has the type of a setting's annotation, ignoring bounds."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(has_type(part, arguments[0]) for part in value)
    if origin is dict:
        return isinstance(value, dict)
    if origin is not None:
        return any(has_type(value, argument) for argument in arguments)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)


def wrong_fields(values: Any) -> list[str]:  # noqa: ANN401
    """List, as ``name=value``, the fields of a dataclass whose values have the wrong type."""
    hints = typing.get_type_hints(type(values))
    wrong = [name for name, hint in hints.items() if not has_type(getattr(values, name), hint)]
    return [f"{name}={getattr(values, name)!r:.80}" for name in wrong]


def aliases(settings_class: type) -> dict[str, tuple[str, ...]]:
    """Map each field that has other names to these."""
    hints = typing.get_type_hints(settings_class, include_extras=True)
    annotations = {name: _annotated(hint, Alias) for name, hint in hints.items()}
    return {name: found[0].names for name, found in annotations.items() if found}


@cache
def _rules(settings_class: type) -> list[tuple[str, list[Within | Length]]]:
    hints = typing.get_type_hints(settings_class, include_extras=True)
    rules = [(name, _annotated(hint, Within | Length)) for name, hint in hints.items()]
    return [(name, found) for name, found in rules if found]


def _annotated(hint: Any, kind: Any) -> list[Any]:  # noqa: ANN401
    outer = [rule for rule in getattr(hint, "__metadata__", ()) if isinstance(rule, kind)]
    return outer or [rule for part in typing.get_args(hint) for rule in _annotated(part, kind)]
