"""What others need of a general checkpoint: its weights and settings, without the optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.vggt.backbone import check_backbone_size
from utils.checkpoints import load_safely, resolve_checkpoint, save_atomically
from utils.errors import UserError
from utils.files import check_output_file

KEPT = ("vggt_nerf", "state_dict", "global_step")
RUN_SETTINGS = ("expname", "save_dir", "ckpt", "init_ckpt")
FOLDERS = (("data", "datadir"), ("worlds", "world_photos"))
"""Paths of whoever trained: of no use to others."""


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

    Raises:
        UserError: There is no such checkpoint, or it is of another kind; the backbone's patches do
            not fill the size; the folder cannot be written.
    """
    source = resolve_checkpoint(str(ckpt))
    content = load_safely(source)
    if not all(name in content for name in KEPT):
        raise UserError(f"{source}: is not a checkpoint of general training")
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
