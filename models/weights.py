"""Weights of a model in files, whoever wrote them: their names, whether they fit, what they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import UserError

_WRAPPERS = re.compile(r"(^|\.)(?:(?:module|_orig_mod)\.)+")
"""What DistributedDataParallel and torch.compile put into the names of a model's parts."""
_SHOWN = 3


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under the names that they have in a model that nothing wraps."""
    return {_WRAPPERS.sub(r"\1", name): value for name, value in state.items()}


def fill_weights(model: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Load all weights of a model, in the model's own precision."""
    check_fit(model.state_dict(), weights, path)
    check_finite(weights, path)
    model.load_state_dict(weights)


def check_fit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights that have not the names and shapes of a model's own."""
    shared = own.keys() & weights.keys()
    problems = {
        "are missing": sorted(own.keys() - shared),
        "are unknown": sorted(weights.keys() - shared),
        "are of another shape": [
            name for name in sorted(shared) if weights[name].shape != own[name].shape
        ],
    }
    told = [f"{len(names)} {what} ({_short(names)})" for what, names in problems.items() if names]
    if told:
        raise UserError(
            f"{path}: the weights do not fit the model of {len(own)} tensors that its settings "
            f"describe: {', '.join(told)}. The file is incomplete or of another model."
        )


def check_finite(weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights that render nothing but NaN."""
    bad = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise UserError(
            f"{path}: {len(bad)} of {len(weights)} tensors hold values that are not finite "
            f"({_short(sorted(bad))}): their run diverged. Take an earlier checkpoint."
        )


def describe_checkpoint(content: Mapping[str, Any]) -> str:
    """Say in a message what a checkpoint is that is none of this project's."""
    if {"network_fn_state_dict", "network_mvs_state_dict"} & content.keys():
        return "a checkpoint of MVSNeRF, whose model is another"
    if isinstance(header := content.get("baseline"), dict):
        return f"a checkpoint of the baseline {header.get('model')}, whose model is another"
    if "vggt_nerf" in content:
        return "a checkpoint of general training"
    if "vggt_nerf_scene" in content:
        return "a fine-tuned scene; its name must end in .tar, as in ckpts/latest.tar"
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return f"a bare state dict of {len(content)} tensors, without the settings of its model"
    if "state_dict" in content:
        return "a checkpoint of another program, without the settings of this model"
    return f"a file of {_short([str(key) for key in content]) or 'nothing'}"


def _short(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
