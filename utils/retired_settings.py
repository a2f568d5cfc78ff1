"""Settings of earlier versions, which old command lines and checkpoints may still give."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)


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
    # Training on single rays and on patches of pixels.
    **_retired("patch_size patch_share"),
    # Training of the small backbone, and its former generator of scenes.
    **_retired(
        "compile_blocks strategy val_difficulty val_batch attention_blocks archetypes march_steps "
        "shadow_steps max_convex max_cards max_blobs max_materials textureless"
    ),
    # Constants in this version.
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
    **_retired("gradient_strides", (1, 4)),
    **_retired("matching_layers", (0, 1)),
    **_retired("shift_layers", (1, 2)),
}
"""For each retired setting the values that this version implements; empty if any may be dropped."""


def check_retired(name: str, value: object) -> str | None:
    """Return why a retired setting's value cannot be dropped, or None if it can."""
    allowed = RETIRED[name]
    if not allowed or any(_is_same(value, other) for other in allowed):
        return None
    return (
        f"{name}={reprlib.repr(value)}: this version no longer supports it; leave it out and train "
        "again, or use the version that it is from"
    )


def remove_retired_flags(arguments: Sequence[str]) -> list[str]:
    """Drop retired flags and their values, with a warning for each.

    Raises ``ValueError`` for a value that this version does not implement.
    """
    kept: list[str] = []
    words = [part for word in arguments for part in word.split("=", word.startswith("--"))]
    while words:
        word = words.pop(0)
        name = word.removeprefix("--")
        if not word.startswith("--") or name not in RETIRED:
            kept.append(word)
            continue
        value = words.pop(0) if words and not words[0].startswith("--") else "true"
        while words and not words[0].startswith("--"):
            words.pop(0)
        if problem := check_retired(name, value):
            raise ValueError(problem)
        logger.warning("--%s no longer has an effect; leave it out", name)
    return kept


def _is_same(value: object, other: object) -> bool:
    """Compare two values, either of which may be text of the command line."""
    try:
        return float(str(value)) == float(str(other))
    except ValueError:
        return str(value) == str(other)
