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
    # General training and fine-tuning: constants now.
    "max_bad_steps": ANY,
    "grad_clip": (1.0,),
    "weight_decay": (1e-4,),
    "lrate_end": (0.02, 0.03),
    "distortion_weight": (0.0,),
    "gamma_spread": (0.15,),
    "gain_spread": (0.1,),
    "balance_spread": (0.05,),
    "val_every_n_epochs": (1,),
    "encode_views": (3,),
    # Sizes of the model, which fine-tuning takes from its checkpoint.
    "feature_channels": ANY,
    "coarse_channels": ANY,
    "pyramid_width": ANY,
    "volume_channels": ANY,
    "volume_widths": ANY,
    "volume_groups": ANY,
    "field_width": ANY,
    "view_width": ANY,
    "similarity_groups": ANY,
    "ray_layers": ANY,
    "ray_heads": ANY,
    "fade": ANY,
}
"""By name the values that can be dropped because this version behaves so; ``ANY``: every value."""


def check_retired(name: str, value: object) -> str | None:
    """Return why a retired setting's value cannot be dropped, or None if it can."""
    allowed = RETIRED[name]
    if allowed is ANY or any(_same(value, other) for other in allowed):
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
