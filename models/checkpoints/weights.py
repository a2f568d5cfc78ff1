"""Checks of state dicts: names, shapes, finite values, and the kind of an unknown file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import UserError, shortened

_WRAPPERS = re.compile(r"(^|\.)(?:(?:module|_orig_mod)\.)+")
"""Prefixes that DistributedDataParallel and torch.compile add to the names of submodules."""
_LISTED_NAMES = 3


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefixes of wrapper modules from the names of weights."""
    return {_WRAPPERS.sub(r"\1", name): value for name, value in state.items()}


def fill_weights(model: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Load all weights of a model, in the model's own precision."""
    check_fit(model.state_dict(), weights, path)
    check_finite(weights, path)
    model.load_state_dict(weights)


def check_fit(
    expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: str | Path
) -> None:
    """Refuse weights whose names or shapes differ from those of a model."""
    if mismatch := describe_mismatch(expected, weights):
        raise UserError(
            f"{path}: the weights do not fit the model of {len(expected)} tensors that its "
            f"settings describe: {mismatch}. The file is incomplete or of another model."
        )


def describe_mismatch(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """Describe how weights differ from a model's own in names and shapes; empty if they fit."""
    problems = {
        "missing": sorted(expected.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} instead of {tuple(expected[name].shape)}"
            for name in sorted(expected.keys() & weights.keys())
            if weights[name].shape != expected[name].shape
        ],
    }
    return "; ".join(
        f"{len(names)} {kind} ({_abbreviated(names)})" for kind, names in problems.items() if names
    )


def check_finite(weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights that are not finite."""
    bad = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise UserError(
            f"{path}: {len(bad)} of {len(weights)} tensors hold values that are not finite "
            f"({_abbreviated(sorted(bad))}): their run diverged. Take an earlier checkpoint."
        )


def describe_checkpoint(content: Mapping[str, Any]) -> str:
    """Describe the kind of a checkpoint that is not of the expected kind, for a message."""
    if {"network_fn_state_dict", "network_mvs_state_dict"} & content.keys():
        return "a checkpoint of MVSNeRF, which is a different model"
    if isinstance(header := content.get("baseline"), dict):
        model = shortened(str(header.get("model")))
        return f"a checkpoint of the baseline {model}, which is a different model"
    if "vggt_nerf" in content:
        return "a checkpoint of general training"
    if "vggt_nerf_scene" in content:
        return "a fine-tuned scene; its name must end in .tar, as in ckpts/latest.tar"
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return f"a bare state dict of {len(content)} tensors, without the settings of its model"
    if "state_dict" in content:
        return "a checkpoint of another program, without the settings of this model"
    return f"a file of {_abbreviated([str(key) for key in content]) or 'nothing'}"


def _abbreviated(names: Sequence[str]) -> str:
    listed = map(shortened, names[:_LISTED_NAMES])
    return ", ".join(listed) + (", ..." if len(names) > _LISTED_NAMES else "")
