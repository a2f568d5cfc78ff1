"""Export a checkpoint for sharing: weights in half precision, without the optimiser state."""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from utils.config import command
from utils.settings import Planes, Settings, Within

_EXPORTED_ENTRIES = ("vggt_nerf", "state_dict", "global_step")
_BACKBONE_SETTINGS = ("vggt_path", "backbone_size")
_SAMPLING_SETTINGS = ("N_samples", "sampling_spread")
_RUN_SETTINGS = ("expname", "save_dir", "ckpt", "init_ckpt")
_DATA_FOLDERS = (("data", "datadir"), ("worlds", "world_photos"))
"""Settings with paths of the training machine, which are removed."""


@dataclass(frozen=True)
class ExportConfig(Settings):
    """All settings of ``apps.export_checkpoint``."""

    ckpt: str
    """checkpoint of general training; for a folder the newest .ckpt in it"""
    out: str = "exported"
    """folder for model.ckpt, and for the folder backbone if the backbone was trained as well"""
    vggt_path: str | None = None
    """path of the backbone that the export refers to; none: unchanged, or the written folder"""
    backbone_size: Annotated[int, Within(28)] | None = None
    """longer side of the backbone's input in pixels; none: as in training"""
    N_samples: Planes | None = None
    """samples per ray when rendering; none: as in training"""
    sampling_spread: bool | None = None
    """also sample beside the planes that have weight; none: as in training"""
    average: tuple[str, ...] = ()
    """more checkpoints of the same model: their weights are averaged with those of ckpt"""


def export_checkpoint(config: ExportConfig) -> Path:
    """Write ``model.ckpt`` and return its path."""
    from models.checkpoints.general import general_content, pop_backbone_weights
    from models.vggt.backbone import check_backbone_size
    from utils.checkpoints import resolve_checkpoint, save_atomically
    from utils.files import check_output_file

    content = general_content(resolve_checkpoint(config.ckpt))
    kept: dict[str, Any] = {name: content[name] for name in _EXPORTED_ENTRIES}
    settings = kept["vggt_nerf"]["settings"]
    settings["run"] = {k: v for k, v in settings["run"].items() if k not in _RUN_SETTINGS}
    for group, name in _DATA_FOLDERS:
        settings.get(group, {}).pop(name, None)
    if mix := settings.get("data", {}).get("mix"):
        # Keep the name of each folder, without its path.
        settings["data"]["mix"] = tuple(re.sub(r":.*/", ":", text) for text in mix)
    backbone, rendering = settings["backbone"], settings["model"]["rendering"]
    if config.backbone_size is not None:
        folders = [path for path in (backbone["vggt_path"], config.vggt_path) if path]
        check_backbone_size(config.backbone_size, *folders)
    target = check_output_file(Path(config.out) / "model.ckpt", "--out")
    if config.average:
        kept["state_dict"] = _averaged(kept, config)
    if pop_backbone_weights(kept["state_dict"]):
        folder = target.parent / "backbone"
        kept["vggt_nerf"]["backbone_fingerprint"] = _write_backbone(config.ckpt, folder)
        backbone |= {"vggt_path": str(folder), "random_backbone": False}
    chosen = {name: value for name, value in vars(config).items() if value is not None}
    backbone |= {name: chosen[name] for name in _BACKBONE_SETTINGS if name in chosen}
    rendering |= {name: chosen[name] for name in _SAMPLING_SETTINGS if name in chosen}
    kept["state_dict"] = {name: value.half() for name, value in kept["state_dict"].items()}
    save_atomically(kept, target)
    return target


def _averaged(content: dict[str, Any], config: ExportConfig) -> dict[str, Any]:
    """Return the mean of the weights: "Model soups" (Wortsman et al. 2022)."""
    import torch

    from models.checkpoints.general import general_content, pop_backbone_weights
    from models.checkpoints.weights import describe_mismatch
    from utils.checkpoints import resolve_checkpoint
    from utils.errors import UserError

    weights, fingerprint = content["state_dict"], content["vggt_nerf"]["backbone_fingerprint"]
    model = content["vggt_nerf"]["settings"]["model"]
    if pop_backbone_weights(dict(weights)):
        raise UserError(
            f"{config.ckpt}: holds a trained backbone, which --average does not average. Export "
            "each checkpoint, and average the backbones by python -m apps.average_backbones."
        )
    states = [weights]
    for path in config.average:
        other = general_content(resolve_checkpoint(path))
        problem = describe_mismatch(weights, other["state_dict"])
        if not problem and other["vggt_nerf"]["backbone_fingerprint"] != fingerprint:
            problem = "it has another backbone"
        if not problem and other["vggt_nerf"]["settings"]["model"] != model:
            problem = "the settings of its model differ"
        if problem:
            raise UserError(
                f"{path}: cannot be averaged with {config.ckpt}: {problem}. Give --average "
                "checkpoints of the same settings."
            )
        states.append(other["state_dict"])
    return {name: torch.stack([s[name].float() for s in states]).mean(0) for name in weights}


def _write_backbone(checkpoint: str, folder: Path) -> str:
    """Write the trained backbone in half precision and return its fingerprint."""
    from models.checkpoints.general import read_checkpoint
    from models.vggt.backbone import FrozenVGGT, fingerprint
    from models.vggt.network import VGGT

    backbone = read_checkpoint(checkpoint).build_model().backbone
    assert isinstance(backbone, FrozenVGGT)
    backbone.network.save_pretrained(folder)
    return fingerprint(VGGT.from_pretrained(folder))


main = command(ExportConfig, lambda config: f"wrote {export_checkpoint(config)}", __doc__)

if __name__ == "__main__":
    sys.exit(main())
