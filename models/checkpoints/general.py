"""Checkpoints of general training: the settings and weights of a VGGT-NeRF."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.checkpoints.baselines import KIND, BaselineCheckpoint, baseline_checkpoint
from models.checkpoints.weights import check_fit, describe_checkpoint, fill_weights, plain_names
from models.config import BackboneConfig, ModelConfig
from models.vggt.backbone import Backbone, FrozenVGGT, checked_backbone, fingerprint
from models.vggt_nerf import VGGTNeRF
from utils.checkpoints import load_safely, resolve_checkpoint
from utils.config import settings_from_plain
from utils.errors import UserError, first_line

PREFIX = "model."
"""Prefix of the names of the model's weights."""
_NETWORK = "network."
"""Prefix of the names of a trained backbone's weights."""
_REQUIRED = f"{PREFIX}volume.points.inward.weight"
"""A tensor of architectures with bundles, in checkpoints and in scene files."""
_SINGLE_RAYS, _NO_GUESS = "cae2b32", "a0c2399"
"""Last versions that render models without bundles, and whose decoder reads no guessed colours."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint of general training."""

    path: Path
    model_config: ModelConfig
    backbone_config: BackboneConfig
    backbone_fingerprint: str
    weights: dict[str, Tensor]
    network_weights: dict[str, Tensor]
    """Weights of the backbone, if it was trained jointly."""
    step: int | None
    """Training steps of the weights, if the file has them."""

    def with_overrides(self, vggt_path: str | None, **rendering: int | float | None) -> Checkpoint:
        """Replace the backbone's folder and rendering settings; ``None`` changes nothing."""
        backbone = self.backbone_config
        if vggt_path is not None:
            backbone = dataclasses.replace(backbone, vggt_path=vggt_path)
        chosen = {name: value for name, value in rendering.items() if value is not None}
        try:
            settings = dataclasses.replace(self.model_config.rendering, **chosen)
        except ValueError as error:
            raise UserError(str(error)) from error
        model_config = dataclasses.replace(self.model_config, rendering=settings)
        return dataclasses.replace(self, model_config=model_config, backbone_config=backbone)

    def describe(self) -> dict[str, Any]:
        """Return the model's description in a report, as plain data."""
        return {
            "path": str(self.path),
            "step": self.step,
            "model": asdict(self.model_config),
            "backbone": asdict(self.backbone_config),
            "backbone_fingerprint": self.backbone_fingerprint,
        }

    def build_model(self, device: torch.device | str = "cpu") -> VGGTNeRF:
        """Build the model on a device, ready to render."""
        backbone = checked_backbone(self.backbone_config, self.backbone_fingerprint, self.path)
        # Compare with a model on the meta device, before memory is allocated.
        own = described_weights(self.model_config, backbone, self.path)
        check_fit(own, self.weights, self.path)
        model = VGGTNeRF(self.model_config, backbone)
        fill_weights(model, self.weights, self.path)
        if isinstance(backbone, FrozenVGGT) and self.network_weights:
            fill_weights(backbone.network, self.network_weights, self.path)
            backbone.fingerprint = fingerprint(backbone.network)
        return model.requires_grad_(False).eval().to(device)


def read_model_file(path: str) -> Checkpoint | BaselineCheckpoint:
    """Read a general model, VGGT-NeRF or a baseline; ``path`` as in ``resolve_checkpoint``."""
    file = resolve_checkpoint(path)
    content = load_safely(file)
    return baseline_checkpoint(content, file) or checkpoint_from(content, file)


def read_checkpoint(path: str) -> Checkpoint:
    """Read a VGGT-NeRF; ``path`` as in ``resolve_checkpoint``."""
    file = resolve_checkpoint(path)
    return checkpoint_from(load_safely(file), file)


def checkpoint_from(content: dict[str, Any], file: Path) -> Checkpoint:
    """Parse the content of a checkpoint of general training."""
    check_general(content, file)
    header = content["vggt_nerf"]
    settings, weights = header["settings"], content["state_dict"]
    backbone = settings_from_plain(BackboneConfig, settings["backbone"], f"{file}: backbone")
    return Checkpoint(
        path=file,
        model_config=settings_from_plain(ModelConfig, settings["model"], f"{file}: model"),
        backbone_config=backbone,
        backbone_fingerprint=header["backbone_fingerprint"],
        network_weights=pop_backbone_weights(weights),
        weights={name.removeprefix(PREFIX): value for name, value in weights.items()},
        step=content.get("global_step"),
    )


def general_content(path: str | Path) -> dict[str, Any]:
    """Read the raw content of a checkpoint of general training, and refuse other files."""
    content = load_safely(path)
    check_general(content, path)
    return content


def saved_settings(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the settings of the general training, of any model, that wrote a checkpoint."""
    if KIND not in content:
        check_general(content, path)
        return content["vggt_nerf"]["settings"]
    baseline_checkpoint({KIND: content[KIND], "state_dict": content.get("state_dict")}, path)
    return content[KIND]["settings"]


def check_general(content: dict[str, Any], path: str | Path) -> None:
    """Refuse other kinds of files, and strip wrapper prefixes from the names of weights."""
    try:
        header = content["vggt_nerf"]
        parts = header["settings"]["model"], header["settings"]["backbone"], content["state_dict"]
        complete = all(isinstance(part, dict) for part in parts) and header["backbone_fingerprint"]
        complete = complete and all(isinstance(value, Tensor) for value in parts[2].values())
    except (KeyError, TypeError):
        complete = False
    if not complete:
        raise UserError(
            f"{path}: is not a checkpoint of general training, but "
            f"{describe_checkpoint(content)}. Give one that train_vggt_nerf_pl.py wrote, or "
            "leave --ckpt out for the shipped one."
        )
    content["state_dict"] = plain_names(content["state_dict"])
    check_architecture(content["state_dict"], path)


def check_architecture(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights of earlier architectures, whose settings may be unknown to this version."""
    version = _SINGLE_RAYS if _REQUIRED not in tensors else None
    layers = (f"{PREFIX}{name}.weight" for name in ("decoder.inward", "decoder.outward"))
    feature = tensors.get(f"{PREFIX}radiance_field.feature.weight")
    inward, outward = map(tensors.get, layers)
    if inward is not None and outward is not None and feature is not None:
        ranks = inward.ndim, outward.ndim, feature.ndim
        # Colours, features, opacity, visibility and depth.
        if ranks == (4, 4, 2) and inward.shape[1] == len(outward) + len(feature) + 3:
            version = _NO_GUESS
    if version:
        raise UserError(
            f"{path}: is of an earlier architecture, which this version cannot render; train "
            f"again, or go back to the version that can: git checkout {version}"
        )


def pop_backbone_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the weights of a trained backbone from a checkpoint's weights, and return them."""
    names = [name for name in weights if name.startswith(_NETWORK)]
    return {name.removeprefix(_NETWORK): weights.pop(name) for name in names}


def described_weights(
    config: ModelConfig, backbone: Backbone, path: str | Path
) -> dict[str, Tensor]:
    """Return the weights of the model of given settings on the meta device, without memory."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return VGGTNeRF(config, backbone).state_dict()
    except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        problem = f"{path}: its settings do not describe a model ({first_line(error)})."
        raise UserError(problem) from error
