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
    "weight_decay": (1e-4, 0.05),
    "lrate_end": (0.01, 0.02, 0.03),
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
    # Training of the small backbone: constants now.
    "layer_scale": (1.0,),
    "compile_blocks": ANY,
    "num_nodes": (1,),
    "strategy": ANY,
    "min_views": (2,),
    "end_difficulty": (1.0,),
    "val_difficulty": ANY,
    "val_batch": ANY,
    "camera_weight": (2.0,),
    "depth_weight": (1.0,),
    "points_weight": (1.0,),
    "gradient_weight": (1.0,),
    "gradient_strides": ((1, 4), [1, 4]),
    "iteration_decay": (0.6,),
    "huber_delta": (0.01,),
    "translation_weight": (0.25,),
    "least_baseline": (0.03,),
    "fov_weight": (0.5,),
    "confidence_alpha": (0.2,),
    "max_confidence": (50.0,),
    "error_limit": (1.0,),
    "matching_weight": (1.0,),
    "matching_dim": (64,),
    "matching_layers": ((0, 1), [0, 1]),
    "matching_temperature": (0.07,),
    "matching_tolerance": (0.03,),
    "attention_weight": (1.0,),
    "attention_blocks": ANY,
    "attention_heads": (1,),
    "shift_weight": (1.0,),
    "shift_layers": ((1, 2), [1, 2]),
    "brightness": (0.25,),
    "contrast": (0.25,),
    "saturation": (0.4,),
    "white_balance": (0.08,),
    "grey_share": (0.05,),
    "ema_decay": (0.9995,),
    # Of the procedural scenes, whose generator is another now.
    "archetypes": ANY,
    "rig": ("natural",),
    "march_steps": ANY,
    "shadow_steps": ANY,
    "max_convex": ANY,
    "max_cards": ANY,
    "max_blobs": ANY,
    "max_materials": ANY,
    "textureless": ANY,
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
