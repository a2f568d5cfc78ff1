"""Reading and writing of folders with the sizes and weights of a VGGT or VGGT-Omega."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.checkpoints.weights import describe_mismatch
from models.vggt.config import OmegaConfig, VGGTConfig, config_from_dict
from utils.checkpoints import load_tensors
from utils.errors import UserError, first_line
from utils.files import READ_ERRORS, atomic_write, from_repository, read_json, write_text

_OMEGA = f'{{"network": "{OmegaConfig.network}"}}'
_OFFICIAL = (
    "To get the official weights: hf download facebook/VGGT-1B --local-dir ckpts/VGGT-1B; of "
    "VGGT-Omega, once access is granted: hf download facebook/VGGT-Omega vggt_omega_1b_512.pt "
    f"--local-dir ckpts/VGGT-Omega, and echo '{_OMEGA}' > ckpts/VGGT-Omega/config.json"
)
_CONFIG = (
    'Expected JSON like {"embed_dim": 1024, "img_size": 518, "patch_size": 14}, or, for '
    f"VGGT-Omega, {_OMEGA}. {_OFFICIAL}"
)
DROPPED_PREFIXES = ("track_head.", "text_alignment_head.")
"""Prefixes of published weights for heads that these networks do not have."""
BLOCKS = {"VGGT": "aggregator.global_blocks.", "VGGT-Omega": "aggregator.inter_frame_blocks."}
"""Prefixes of names that only one of the networks has."""
_LOG = logging.getLogger(__name__)


def read_config(folder: str | Path) -> VGGTConfig:
    """Read the ``config.json`` of a folder."""
    folder = from_repository(folder)
    path = folder / "config.json"
    if not folder.is_dir():
        raise _error(folder, "no such folder", "a folder with config.json and model.safetensors")
    try:
        return config_from_dict(read_json(path, "configuration", remedy=_CONFIG))
    except ValueError as error:
        raise UserError(f"{path}: {error}. {_CONFIG}") from error


def load_weights(network: nn.Module, folder: Path) -> None:
    """Load the weights of a folder, as float32, into a network that may be on the meta device."""
    path = find_weights(folder)
    state = _read_tensors(path)
    if dropped := {key for key in state if key.startswith(DROPPED_PREFIXES)}:
        heads = ", ".join(sorted({key.split(".")[0] for key in dropped}))
        _LOG.info("%s: %s is left out, because this project does not use it", path, heads)
    state = {key: value for key, value in state.items() if key not in dropped}
    _check_matching(state, network.state_dict(), path)
    # Copy each tensor: parameters must not be backed by the mapped file.
    owned = {key: value.to(torch.float32, copy=True) for key, value in state.items()}
    network.load_state_dict(owned, strict=True, assign=True)


def find_weights(folder: Path) -> Path:
    """Return ``model.safetensors``, else ``model.pt``, else the only other weights file."""
    for name in ("model.safetensors", "model.pt"):
        if (folder / name).is_file():
            return folder / name
    others = sorted([*folder.glob("*.safetensors"), *folder.glob("*.pt")])
    if len(others) == 1:
        return others[0]
    names = ", ".join(path.name for path in others) or "none"
    expected = "model.safetensors, model.pt, or a single other .safetensors or .pt file"
    raise _error(folder, f"weights files found: {names}", expected)


def save_weights(network: nn.Module, config: VGGTConfig, folder: Path) -> Path:
    """Write ``config.json`` and, in half precision, ``model.safetensors``; return the latter."""
    path = folder / "model.safetensors"
    constants = dict(network.named_buffers())
    weights = {
        key: value.detach().to("cpu", None if key in constants else torch.float16).contiguous()
        for key, value in network.state_dict().items()
    }
    for key, value in weights.items():
        if not value.isfinite().all():
            raise UserError(f"tensor {key} has values beyond half precision; not exported")
    write_text(path.with_name("config.json"), json.dumps(asdict(config), indent=2) + "\n")
    with atomic_write(path) as partial:
        save_file(weights, partial, metadata={"format": "pt"})
    return path


def _read_tensors(path: Path) -> dict[str, Tensor]:
    expected = "a complete, plain state dict of tensors"
    try:
        state = load_file(path) if path.suffix == ".safetensors" else load_tensors(path)
    except pickle.UnpicklingError as error:
        # Never fall back to plain unpickling, which can run arbitrary code.
        problem = "not a readable archive of plain tensors; nothing in it was run"
        raise _error(path, problem, expected) from error
    except (SafetensorError, *READ_ERRORS) as error:
        raise _error(path, first_line(error), expected) from error
    if isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values()):
        return state
    raise _error(path, f"it holds another kind of content ({type(state).__name__})", expected)


def _check_matching(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    for name, blocks in BLOCKS.items():
        in_file, in_network = (any(key.startswith(blocks) for key in keys) for keys in (state, own))
        if in_file and not in_network:
            problem = f"it holds the weights of {name}, but config.json describes another network"
            raise _error(path, problem, f"{_OMEGA} in VGGT-Omega's config.json, and only there")
    if mismatch := describe_mismatch(own, state):
        expected = f"the {len(own)} tensors that its config.json describes"
        raise _error(path, f"tensors {mismatch}", expected)


def _error(path: Path, problem: str, expected: str) -> UserError:
    return UserError(f"{path}: {problem}. Expected {expected}. {_OFFICIAL}")
