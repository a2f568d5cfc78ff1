"""A model from a checkpoint alone: the settings that rendering needs are in it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from models.config import BackboneConfig, ModelConfig
from models.vggt.backbone import load_backbone
from models.vggt_nerf import VGGTNeRF
from utils.checkpoints import load_safely, resolve_checkpoint
from utils.config import settings_from_plain
from utils.errors import UserError

ConfigT = TypeVar("ConfigT")

_PREFIX = "model."
"""Under which the training module holds the model."""


@dataclass(frozen=True)
class Checkpoint:
    """What is read of a checkpoint: enough to build its model any number of times."""

    path: Path
    model_config: ModelConfig
    backbone_config: BackboneConfig
    backbone_fingerprint: str
    weights: dict[str, torch.Tensor]
    step: int | None
    """Training steps that the weights have seen, if the file says."""

    def with_overrides(self, vggt_path: str | None, **rendering: int | float | None) -> Checkpoint:
        """Change where the backbone lies and how rays are sampled; ``None`` changes nothing.

        Raises:
            UserError: The model cannot sample so.
        """
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

    def build_model(self, device: torch.device | str = "cpu") -> VGGTNeRF:
        """Build the model on a device, ready to render.

        Raises:
            UserError: Its backbone is missing or another one, or the weights do not fit.
        """
        backbone = load_backbone(self.backbone_config)
        if backbone.fingerprint != self.backbone_fingerprint:
            raise UserError(
                f"{self.path}: was trained on another backbone (fingerprint "
                f"{self.backbone_fingerprint}; {self.backbone_config.vggt_path} has "
                f"{backbone.fingerprint}); point --vggt_path at the backbone it was trained on"
            )
        model = VGGTNeRF(self.model_config, backbone)
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise UserError(f"{self.path}: the weights do not fit its settings: {error}") from error
        return model.requires_grad_(False).eval().to(device)


def read_checkpoint(path: str) -> Checkpoint:
    """Read a checkpoint of general training.

    Raises:
        UserError: There is none, or it is of another kind.
    """
    file = resolve_checkpoint(path)
    content = load_safely(file)
    try:
        header, state = content["vggt_nerf"], content["state_dict"]
        settings = header["settings"]
        model, backbone = settings["model"], settings["backbone"]
        fingerprint = header["backbone_fingerprint"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{file}: is not a checkpoint of general training") from error
    return Checkpoint(
        path=file,
        model_config=settings_from_plain(ModelConfig, model, f"{file}: model"),
        backbone_config=settings_from_plain(BackboneConfig, backbone, f"{file}: backbone"),
        backbone_fingerprint=fingerprint,
        weights={name.removeprefix(_PREFIX): value for name, value in state.items()},
        step=content.get("global_step"),
    )
