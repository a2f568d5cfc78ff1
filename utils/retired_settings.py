"""Settings that no longer exist: files and commands of earlier versions still work."""

from __future__ import annotations

from collections.abc import Collection, Mapping

ANY: Collection[object] = ()

RETIRED: Mapping[str, Collection[object]] = {
    "residual": ("none",),
    "residual_levels": ANY,
    "residual_bits": ANY,
    "residual_coarsest": ANY,
    "residual_finest": ANY,
    "residual_width": ANY,
    "guide_cells": ANY,
    "one_sided": ANY,
    "own_weight": ANY,
    "lrate_residual": ANY,
    "fade": ANY,
}
"""By name the values that can be dropped because this version behaves so; ``ANY``: every value."""


def check_retired(name: str, value: object) -> str | None:
    """Return why a retired setting's value cannot be dropped, or None if it can."""
    allowed = RETIRED[name]
    if allowed is ANY or value in allowed:
        return None
    return (
        f"{name}={value!r}: this version no longer supports it; leave it out and train again, or "
        "use the version that it is from"
    )
