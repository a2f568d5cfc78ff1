"""Settings as frozen dataclasses whose annotations say which values are allowed.

``batch_size: Count = 2048`` is a whole number from 1; ``Settings`` checks it on construction.
Modules that define settings do not import torch, so that ``--help`` answers at once.
"""

from __future__ import annotations

import math
import reprlib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

_MOST = 2**31 - 1
"""Largest whole number: beyond any size, and what all that counts can hold."""


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
        if self.high == math.inf or (not high_enough and all(isinstance(n, int) for n in numbers)):
            return f"must be {'more than ' if self.above else 'at least '}{self.low:g}"
        left, right = "(" if self.above else "[", ")" if self.below else "]"
        return f"must lie in {left}{self.low:g}, {self.high:.10g}{right}"


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


Count = Annotated[int, Within(1, _MOST)]
NonNegativeInt = Annotated[int, Within(0, _MOST)]
MOST_CHANNELS = 4096
"""Of a layer of any model here; VGGT-NeRF has 96 at most."""
Channels = Annotated[int, Within(1, MOST_CHANNELS)]
Layers = Annotated[int, Within(0, 64)]
Planes = Annotated[int, Within(2, 4096)]
"""Places on a ray."""
Stages = Length(tuple(range(1, 9)))
"""Numbers of a network, one for each of its resolutions."""
Positive = Annotated[float, Within(0, math.inf, above=True, below=True)]
NonNegative = Annotated[float, Within(0, math.inf, below=True)]
Rate = Annotated[float, Within(0, 10, above=True)]
"""A learning rate: no optimiser here learns with a higher one."""
Weight = Annotated[float, Within(0, 1e6)]
"""Of a term in a sum, beside others of about 1."""
Share = Annotated[float, Within(0, 1)]
OptionalSize = Annotated[tuple[int, ...], Length((0, 2)), Within(1, 1 << 15)]
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
                    raise ValueError(f"{name}={reprlib.repr(value)} {problem}")


def has_type(value: object, hint: Any) -> bool:  # noqa: ANN401
    """Tell whether a value is of the type that a setting's annotation says, rules left aside."""
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
    """Return name and value of the fields of a dataclass that are of other types than it says."""
    found = [
        (name, getattr(values, name), hint)
        for name, hint in typing.get_type_hints(type(values)).items()
    ]
    return [f"{name}={value!r:.80}" for name, value, hint in found if not has_type(value, hint)]


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


def _retired(names: str, *values: object) -> dict[str, tuple[object, ...]]:
    return dict.fromkeys(names.split(), values)


RETIRED: Mapping[str, tuple[object, ...]] = {
    **_retired(
        "residual_levels residual_bits residual_coarsest residual_finest residual_width "
        "guide_cells one_sided own_weight lrate_residual max_bad_steps"
    ),
    # Sizes of the model, which fine-tuning takes from its checkpoint.
    **_retired(
        "feature_channels coarse_channels pyramid_width volume_channels volume_widths "
        "volume_groups field_width view_width similarity_groups ray_layers ray_heads fade"
    ),
    # Single rays and patches of pixels, as training drew them.
    **_retired("patch_size patch_share"),
    # Training of the small backbone; procedural scenes, whose generator is another now.
    **_retired(
        "compile_blocks strategy val_difficulty val_batch attention_blocks archetypes march_steps "
        "shadow_steps max_convex max_cards max_blobs max_materials textureless"
    ),
    # Constants now.
    **_retired(
        "grad_clip val_every_n_epochs layer_scale num_nodes end_difficulty depth_weight "
        "points_weight gradient_weight error_limit matching_weight attention_weight "
        "attention_heads shift_weight",
        1.0,
    ),
    **_retired("residual", "none"),
    **_retired("rig", "natural"),
    **_retired("weight_decay", 1e-4, 0.05),
    **_retired("lrate_end", 0.01, 0.02, 0.03),
    **_retired("distortion_weight", 0.0),
    **_retired("huber_delta", 0.01),
    **_retired("least_baseline matching_tolerance", 0.03),
    **_retired("balance_spread grey_share", 0.05),
    **_retired("matching_temperature", 0.07),
    **_retired("white_balance", 0.08),
    **_retired("gain_spread", 0.1),
    **_retired("gamma_spread", 0.15),
    **_retired("confidence_alpha", 0.2),
    **_retired("translation_weight brightness contrast", 0.25),
    **_retired("saturation", 0.4),
    **_retired("fov_weight", 0.5),
    **_retired("iteration_decay", 0.6),
    **_retired("ema_decay", 0.9995),
    **_retired("min_views camera_weight", 2),
    **_retired("encode_views", 3),
    **_retired("max_confidence", 50),
    **_retired("matching_dim", 64),
    **_retired("gradient_strides", (1, 4), [1, 4]),
    **_retired("matching_layers", (0, 1), [0, 1]),
    **_retired("shift_layers", (1, 2), [1, 2]),
}
"""Settings of earlier versions by name, with the values that can be dropped because this version
behaves so; none: every value."""


def check_retired(name: str, value: object) -> str | None:
    """Return why a retired setting's value cannot be dropped, or None if it can."""
    allowed = RETIRED[name]
    if not allowed or any(_same(value, other) for other in allowed):
        return None
    return (
        f"{name}={reprlib.repr(value)}: this version no longer supports it; leave it out and train "
        "again, or use the version that it is from"
    )


def _same(value: object, other: object) -> bool:
    """Compare two values, either of which may be a flag's text."""
    try:
        return float(str(value)) == float(str(other))
    except ValueError:
        return str(value) == str(other)
