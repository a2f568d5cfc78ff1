"""Make a checkpoint small enough to share: without optimiser, with what rendering needs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from utils.config import parse_config
from utils.settings import Settings, Within

KEPT = ("vggt_nerf", "state_dict", "global_step")
RUN_SETTINGS = ("expname", "save_dir", "ckpt", "init_ckpt")
FOLDERS = (("data", "datadir"), ("worlds", "world_photos"))
"""Paths of the machine that trained: of no use to others."""


@dataclass(frozen=True)
class ExportConfig(Settings):
    """All settings of ``apps.export_checkpoint``."""

    ckpt: str
    """checkpoint of general training; a folder stands for the newest .ckpt in it"""
    out: str = "exported"
    """folder to write model.ckpt to"""
    vggt_path: str | None = None
    """where those who load it find the backbone; none: where the run found it"""
    backbone_size: Annotated[int, Within(28)] | None = None
    """longer side, in pixels, of what the backbone will see; none: as in training"""
    N_samples: Annotated[int, Within(2)] | None = None
    """samples on each ray when it renders; none: as in training"""
    sampling_spread: bool | None = None
    """whether samples are also drawn beside where the volume found mass; none: as in training"""


def export_checkpoint(
    ckpt: Path | str,
    folder: Path | str,
    vggt_path: str | None = None,
    backbone_size: int | None = None,
    sampling: Mapping[str, int | bool | None] | None = None,
) -> Path:
    """Write ``folder/model.ckpt`` and return its path.

    Args:
        ckpt: A checkpoint of general training, as ``resolve_checkpoint`` takes it.
        folder: Made if need be.
        vggt_path: Where those who load it will find its backbone; ``None`` keeps the run's path.
        backbone_size: Longer side of what the backbone will see; ``None`` keeps that of training.
        sampling: Settings of ``RenderConfig`` to have otherwise; what is ``None`` stays.
    """
    # Here, so that --help does not wait for torch.
    from models.checkpoint import general_content
    from models.vggt.backbone import check_backbone_size
    from utils.files import check_output_file, resolve_checkpoint, save_atomically

    content = general_content(resolve_checkpoint(str(ckpt)))
    kept: dict[str, Any] = {name: content[name] for name in KEPT}
    settings = kept["vggt_nerf"]["settings"]
    settings["run"] = {k: v for k, v in settings["run"].items() if k not in RUN_SETTINGS}
    for part, name in FOLDERS:
        settings.get(part, {}).pop(name, None)
    backbone = settings["backbone"]
    if backbone_size is not None:
        folders = [path for path in (backbone["vggt_path"], vggt_path) if path]
        check_backbone_size(backbone_size, *folders)
        backbone["backbone_size"] = backbone_size
    if vggt_path is not None:
        backbone["vggt_path"] = vggt_path
    chosen = {name: value for name, value in (sampling or {}).items() if value is not None}
    settings["model"]["rendering"].update(chosen)
    target = Path(folder) / "model.ckpt"
    check_output_file(target, "--out")
    save_atomically(kept, target)
    return target


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status, as ``run_and_report`` documents it."""
    config = parse_config(ExportConfig, argv, description=__doc__ or "")
    sampling = {"N_samples": config.N_samples, "sampling_spread": config.sampling_spread}
    changes = config.vggt_path, config.backbone_size, sampling
    from utils.errors import run_and_report

    return run_and_report(lambda: f"wrote {export_checkpoint(config.ckpt, config.out, *changes)}")


if __name__ == "__main__":
    sys.exit(main())
