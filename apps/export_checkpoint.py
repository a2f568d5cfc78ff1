"""Make a checkpoint small enough to share: half precision, what rendering needs, no optimiser."""

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

KEPT = ("vggt_nerf", "state_dict", "global_step")
BACKBONE_FOLDER = "backbone"
BACKBONE_SETTINGS = ("vggt_path", "backbone_size")
SAMPLING_SETTINGS = ("N_samples", "sampling_spread")
RUN_SETTINGS = ("expname", "save_dir", "ckpt", "init_ckpt")
FOLDERS = (("data", "datadir"), ("worlds", "world_photos"))
"""Paths of the machine that trained: of no use to others."""


@dataclass(frozen=True)
class ExportConfig(Settings):
    """All settings of ``apps.export_checkpoint``."""

    ckpt: str
    """checkpoint of general training; a folder stands for the newest .ckpt in it"""
    out: str = "exported"
    """folder to write model.ckpt to, and the folder backbone where the backbone was trained, too"""
    vggt_path: str | None = None
    """where those who load it find the backbone; none: where it was found, or is written to"""
    backbone_size: Annotated[int, Within(28)] | None = None
    """longer side, in pixels, of what the backbone will see; none: as in training"""
    N_samples: Planes | None = None
    """samples on each ray when it renders; none: as in training"""
    sampling_spread: bool | None = None
    """whether samples are also drawn beside where the volume found mass; none: as in training"""


def export_checkpoint(config: ExportConfig) -> Path:
    """Write ``model.ckpt`` and return its path."""
    from models.checkpoints.general import general_content, pop_backbone_weights
    from models.vggt.backbone import check_backbone_size
    from utils.checkpoints import resolve_checkpoint, save_atomically
    from utils.files import check_output_file

    content = general_content(resolve_checkpoint(config.ckpt))
    kept: dict[str, Any] = {name: content[name] for name in KEPT}
    settings = kept["vggt_nerf"]["settings"]
    settings["run"] = {k: v for k, v in settings["run"].items() if k not in RUN_SETTINGS}
    for part, name in FOLDERS:
        settings.get(part, {}).pop(name, None)
    if mix := settings.get("data", {}).get("mix"):
        # Of folders, the names alone.
        settings["data"]["mix"] = tuple(re.sub(r":.*/", ":", text) for text in mix)
    backbone, rendering = settings["backbone"], settings["model"]["rendering"]
    if config.backbone_size is not None:
        folders = [path for path in (backbone["vggt_path"], config.vggt_path) if path]
        check_backbone_size(config.backbone_size, *folders)
    target = check_output_file(Path(config.out) / "model.ckpt", "--out")
    if pop_backbone_weights(kept["state_dict"]):
        folder = target.parent / BACKBONE_FOLDER
        kept["vggt_nerf"]["backbone_fingerprint"] = _write_backbone(config.ckpt, folder)
        backbone |= {"vggt_path": str(folder), "random_backbone": False}
    chosen = {name: value for name, value in vars(config).items() if value is not None}
    backbone |= {name: chosen[name] for name in BACKBONE_SETTINGS if name in chosen}
    rendering |= {name: chosen[name] for name in SAMPLING_SETTINGS if name in chosen}
    kept["state_dict"] = {name: value.half() for name, value in kept["state_dict"].items()}
    save_atomically(kept, target)
    return target


def _write_backbone(checkpoint: str, folder: Path) -> str:
    """Write the backbone that was trained, too, and return its fingerprint in half precision."""
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
