"""Settings as frozen dataclasses whose annotations say which values are allowed.

``batch_size: Count = 2048`` is a whole number from 1; ``Settings`` checks it on construction.
Modules that define settings do not import torch, so that ``--help`` answers at once.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Collection, Mapping
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
    own = [rule for rule in getattr(hint, "__metadata__", ()) if isinstance(rule, kind)]
    return own or [rule for part in typing.get_args(hint) for rule in _annotated(part, kind)]


_ANY: Collection[object] = ()
RETIRED: Mapping[str, Collection[object]] = {
    **dict.fromkeys(
        (
            *"residual_levels residual_bits residual_coarsest residual_finest".split(),
            *"residual_width guide_cells one_sided own_weight lrate_residual".split(),
            # General training and fine-tuning.
            "max_bad_steps",
            # Sizes of the model, which fine-tuning takes from its checkpoint.
            *"feature_channels coarse_channels pyramid_width volume_channels volume_widths".split(),
            *"volume_groups field_width view_width similarity_groups".split(),
            *"ray_layers ray_heads fade".split(),
            # Training of the small backbone.
            *"compile_blocks strategy val_difficulty val_batch attention_blocks".split(),
            # Procedural scenes, whose generator is another now.
            *"archetypes march_steps shadow_steps max_convex max_cards max_blobs".split(),
            *"max_materials textureless".split(),
        ),
        _ANY,
    ),
    "residual": ("none",),
    # General training and fine-tuning: constants now.
    "grad_clip": (1.0,),
    "weight_decay": (1e-4, 0.05),
    "lrate_end": (0.01, 0.02, 0.03),
    "distortion_weight": (0.0,),
    "gamma_spread": (0.15,),
    "gain_spread": (0.1,),
    "balance_spread": (0.05,),
    "val_every_n_epochs": (1,),
    "encode_views": (3,),
    # Training of the small backbone: constants now.
    **dict.fromkeys(
        (
            *"layer_scale num_nodes end_difficulty depth_weight points_weight".split(),
            *"gradient_weight error_limit matching_weight attention_weight".split(),
            *"attention_heads shift_weight".split(),
        ),
        (1.0,),
    ),
    "min_views": (2,),
    "camera_weight": (2.0,),
    "gradient_strides": ((1, 4), [1, 4]),
    "iteration_decay": (0.6,),
    "huber_delta": (0.01,),
    "translation_weight": (0.25,),
    "least_baseline": (0.03,),
    "fov_weight": (0.5,),
    "confidence_alpha": (0.2,),
    "max_confidence": (50.0,),
    "matching_dim": (64,),
    "matching_layers": ((0, 1), [0, 1]),
    "matching_temperature": (0.07,),
    "matching_tolerance": (0.03,),
    "shift_layers": ((1, 2), [1, 2]),
    "brightness": (0.25,),
    "contrast": (0.25,),
    "saturation": (0.4,),
    "white_balance": (0.08,),
    "grey_share": (0.05,),
    "ema_decay": (0.9995,),
    # Procedural scenes.
    "rig": ("natural",),
}
"""Settings of earlier versions by name, with the values that can be dropped because this version
behaves so; ``_ANY``: every value."""


def check_retired(name: str, value: object) -> str | None:
    """Return why a retired setting's value cannot be dropped, or None if it can."""
    allowed = RETIRED[name]
    if allowed is _ANY or any(_same(value, other) for other in allowed):
        return None
    return (
        f"{name}={value!r}: this version no longer supports it; leave it out and train again, or "
        "use the version that it is from"
    )


def _same(value: object, other: object) -> bool:
    """Compare two values, either of which may be a flag's text."""
    try:
        return float(str(value)) == float(str(other))
    except ValueError:
        return str(value) == str(other)
