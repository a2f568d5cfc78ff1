"""The checkpoint of a run's best validation, whose place no other file decides."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import ModelCheckpoint

logger = logging.getLogger(__name__)

_OWN_NAME = re.compile(r"epoch=\d+/step=\d+-psnr=[-.\w]+\.ckpt")
"""What ``BestCheckpoint`` calls its files, from the folder of checkpoints on."""


class BestCheckpoint(ModelCheckpoint):
    """Keep the checkpoint of the highest validation PSNR.

    Lightning removes the file that the state of a resumed run calls the worst of the best. So of
    this state nothing is taken but a score, and only if its file lies in the run's own folder.
    """

    def __init__(self, folder: Path) -> None:
        """Write to a folder of a run's checkpoints."""
        super().__init__(
            dirpath=folder,
            filename="epoch={epoch:02d}/step={step}-psnr={val/PSNR:.2f}",
            monitor="val/PSNR",
            mode="max",
            auto_insert_metric_name=False,
            enable_version_counter=False,
            # Right after validation, so that the last.ckpt of the epoch's end knows the new best.
            save_on_train_epoch_end=False,
        )
        self.folder = folder

    @property
    def state_key(self) -> str:
        """Return the key of Lightning's own class, which all files have."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Rebuild the best file so far from its name and score, if it is there."""
        recorded, score = state_dict.get("best_model_path"), state_dict.get("best_model_score")
        if not recorded:
            return
        path = own_file(self.folder, recorded)
        if path is None or not isinstance(score, torch.Tensor) or score.numel() != 1:
            logger.warning(
                "%r is no best checkpoint in %s: only what comes now can be the best",
                *(str(recorded)[:200], self.folder),
            )
            return
        self.best_model_path = self.kth_best_model_path = str(path)
        self.best_model_score = self.kth_value = self.current_score = score
        self.best_k_models = {str(path): score}


def own_file(folder: Path, recorded: object) -> Path | None:
    """Return the best checkpoint of a run's folder that a record names, wherever the folder was."""
    if not isinstance(recorded, str):
        return None
    name = "/".join(Path(recorded).parts[-2:])
    path = folder.absolute() / name
    inside = path.resolve().is_relative_to(folder.resolve())
    return path if _OWN_NAME.fullmatch(name) and inside and path.is_file() else None
