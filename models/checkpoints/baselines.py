"""Checkpoints of baselines: of general training, and MVSNeRF's official files."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.baselines.config import BASELINES, BaselineConfig
from models.baselines.mvsnerf.model import MVSNeRF
from models.baselines.point_regression import PointRegression
from models.checkpoints.weights import fill_weights, plain_names
from models.config import BackboneConfig, FeaturePyramidConfig
from models.vggt.backbone import checked_backbone
from utils.config import settings_from_plain
from utils.errors import UserError

KIND = "baseline"
"""Key of the header in checkpoints of a baseline."""
MVSNERF_PARTS = ("network_fn_state_dict", "network_mvs_state_dict")
"""Keys of the weights in MVSNeRF's official files."""
_UNUSED_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Buffers of MVSNeRF's batch norms, which it never uses."""
_PREFIX = "model."


@dataclass(frozen=True)
class BaselineCheckpoint:
    """The content of a checkpoint of a baseline."""

    path: Path
    model: str
    config: BaselineConfig
    weights: dict[str, Tensor]
    step: int | None
    pyramid: FeaturePyramidConfig = dataclasses.field(default_factory=FeaturePyramidConfig)
    """Of the point regression only, as are the fields below."""
    backbone_config: BackboneConfig = dataclasses.field(default_factory=BackboneConfig)
    backbone_fingerprint: str = ""

    def with_overrides(
        self, vggt_path: str | None, **rendering: int | float | None
    ) -> BaselineCheckpoint:
        """Replace the backbone's folder and sampling settings; ``None`` changes nothing."""
        chosen = {name: value for name, value in rendering.items() if value is not None}
        names = {"N_samples": "ray_samples", "N_planes": "encoding_planes"}
        if unknown := [name for name in chosen if name not in names]:
            raise UserError(f"--{unknown[0]}: the baseline {self.model} has no such setting.")
        try:
            changed: dict[str, Any] = {names[name]: value for name, value in chosen.items()}
            config = dataclasses.replace(self.config, **changed)
        except ValueError as error:
            raise UserError(str(error)) from error
        backbone = self.backbone_config
        if vggt_path is not None:
            backbone = dataclasses.replace(backbone, vggt_path=vggt_path)
        return dataclasses.replace(self, config=config, backbone_config=backbone)

    def describe(self) -> dict[str, Any]:
        """Return the model's description in a report, as plain data."""
        return {
            "path": str(self.path),
            "step": self.step,
            "model": self.model,
            "baseline": asdict(self.config),
        }

    def build_model(self, device: torch.device | str = "cpu") -> MVSNeRF | PointRegression:
        """Build the model on a device, ready to render."""
        if self.model == "mvsnerf":
            model = MVSNeRF(self.config)
        else:
            backbone = checked_backbone(self.backbone_config, self.backbone_fingerprint, self.path)
            model = PointRegression(self.config, self.pyramid, backbone)
        fill_weights(model, self.weights, self.path)
        return model.requires_grad_(False).eval().to(device)


def baseline_checkpoint(content: Mapping[str, Any], path: Path) -> BaselineCheckpoint | None:
    """Parse the content of a baseline's checkpoint; return None for other files."""
    if set(MVSNERF_PARTS) <= content.keys():
        return _mvsnerf_checkpoint(content, path)
    if KIND not in content:
        return None
    header, source = content[KIND], f"{path}: settings"
    try:
        settings, weights = header["settings"], _plain_weights(content["state_dict"], path)
        known = header["model"] in BASELINES
        pyramid, backbone = settings["model"]["pyramid"], settings["backbone"]
        config, fingerprint = settings["baselines"], header["backbone_fingerprint"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is damaged or of another version ({error!r})") from error
    if not known:
        model = reprlib.repr(header["model"])
        raise UserError(f"{path}: holds {model}, not one of {', '.join(BASELINES)}.")
    return BaselineCheckpoint(
        path=path,
        model=header["model"],
        config=settings_from_plain(BaselineConfig, config, source),
        weights={name.removeprefix(_PREFIX): value for name, value in weights.items()},
        step=content.get("global_step"),
        pyramid=settings_from_plain(FeaturePyramidConfig, pyramid, source),
        backbone_config=settings_from_plain(BackboneConfig, backbone, source),
        backbone_fingerprint=fingerprint,
    )


def is_mvsnerf_file(path: Path) -> bool:
    """Tell by its first bytes whether a file is a checkpoint of MVSNeRF's official code."""
    with path.open("rb") as file:
        return MVSNERF_PARTS[0].encode() in file.read(4096)


def _mvsnerf_checkpoint(content: Mapping[str, Any], path: Path) -> BaselineCheckpoint:
    if "volume" in content:
        raise UserError(
            f"{path}: is a scene that MVSNeRF's own code fine-tuned, without its cameras; give the "
            "general checkpoint mvsnerf-v0.tar, and fine-tune with --init_ckpt"
        )
    parts = [_plain_weights(content[part], path) for part in MVSNERF_PARTS]
    weights = {
        name: value
        for part in parts
        for name, value in part.items()
        if name.rpartition(".")[2] not in _UNUSED_STATISTICS
    }
    step = content.get("global_step")
    return BaselineCheckpoint(path, "mvsnerf", BaselineConfig(), weights, step)


def _plain_weights(weights: object, path: Path) -> dict[str, Tensor]:
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise UserError(f"{path}: its weights are not tensors; it is damaged or of another version")
    return plain_names(weights)
