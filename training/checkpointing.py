"""Writing of checkpoints: last and best file of a run, signals, the lock on its folder."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.plugins import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only

from utils.checkpoints import load_safely, save_atomically
from utils.errors import TrainingInterrupted
from utils.files import check_output_folder, locked_folder, remove_partial_files, set_aside

logger = logging.getLogger(__name__)

SIGNAL_SYNC_STEPS = 10
"""Steps between exchanges of received signals between ranks, which wait for their devices."""
_BEST_NAME = re.compile(r"epoch=\d+/step=\d+-psnr=[-.\w]+\.ckpt")


@contextmanager
def exclusive_run_folder(folder: Path) -> Iterator[None]:
    """Create and lock a run's folder, and remove partial files of killed runs.

    Only the first rank locks it: on a shared file system the others would be refused.
    """
    check_output_folder(folder)
    # Lightning knows the node rank only after the trainer has been built.
    node_rank = os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or "0"
    if rank_zero_only.rank or node_rank != "0":  # pyright: ignore[reportFunctionMemberAccess]
        yield
        return
    remedy = "Give this run a name of its own with --expname, or wait for the other one."
    with locked_folder(folder, remedy):
        remove_partial_files(folder)
        yield


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written atomically and read as plain data."""

    def __init__(self, folder: Path) -> None:
        """Store the run's folder; files outside it are never removed."""
        self.folder = folder

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, **_: object) -> None:
        """Write the file atomically."""
        save_atomically(checkpoint, path)

    def load_checkpoint(self, path: str | Path, **_: object) -> dict[str, Any]:
        """Read the file as plain data, whatever the arguments of Lightning."""
        return load_safely(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a file of the run, and its epoch folder if that is empty then."""
        path = Path(path)
        # Only the parent is resolved: a link is removed, not its target.
        parent = path.parent.resolve()
        if not parent.is_relative_to(self.folder.resolve()) or path.suffix != ".ckpt":
            logger.warning("%s: not removed, since it is no checkpoint in %s", path, self.folder)
            return
        path.unlink(missing_ok=True)
        folder = path.parent
        if folder.name.startswith("epoch=") and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


class LastCheckpoint(Callback):
    """Save every ``every_n_steps`` steps, at the end, and on SIGTERM or Ctrl-C.

    After a signal the run saves and stops at the end of the current step (with several ranks within
    ``SIGNAL_SYNC_STEPS`` steps), or after the current view of a validation, whose step is already
    saved. A second signal of the same kind acts immediately.
    """

    def __init__(self, folder: Path, every_n_steps: int, name: str = "last.ckpt") -> None:
        self.path = folder / name
        self.every_n_steps = every_n_steps
        self.started = False
        """Whether the state is restored and the first step is next."""
        self._signum = 0
        self._saved_step = -1

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let SIGTERM end the process: Lightning would postpone it, and nothing is to be saved."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if trainer.received_sigterm:
            signal.raise_signal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace Lightning's signal handlers and rename the file of an earlier run.

        All ranks have read their checkpoint by now.
        """
        resumed = Path(trainer.ckpt_path).resolve() if trainer.ckpt_path else None
        if trainer.is_global_zero and resumed != self.path.resolve():
            set_aside(self.path)
        self.started = True
        self._signum = signal.SIGTERM if trainer.received_sigterm else 0
        # Lightning restores the original handlers at the end.
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._on_signal)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        """Save if due or after a signal, which also stops the run."""
        signum = self._synchronized_signal(trainer)
        epoch_ends = trainer.fit_loop.epoch_loop._num_ready_batches_reached()
        if signum or trainer.global_step % self.every_n_steps == 0 or epoch_ends:
            self.save(trainer)
        if signum:
            raise TrainingInterrupted(signum, self.path)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        """Stop within a validation after a signal."""
        if signum := self._synchronized_signal(trainer):
            raise TrainingInterrupted(signum, self.path)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the same step again at the end of the epoch, with the validation completed."""
        self._saved_step = -1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the end of the epoch."""
        self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Write the file, unless this step is already saved."""
        if trainer.sanity_checking or trainer.global_step == self._saved_step:
            return
        # `weights_only` of Lightning means: without optimiser and loops.
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_step = trainer.global_step

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._signum == signum:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        self._signum = signum

    def _synchronized_signal(self, trainer: pl.Trainer) -> int:
        if trainer.world_size == 1:
            return self._signum
        if trainer.training and trainer.global_step % SIGNAL_SYNC_STEPS:
            return 0
        received = torch.tensor(self._signum, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(received, op=torch.distributed.ReduceOp.MAX)
        return int(received)


def last_checkpoint(trainer: pl.Trainer) -> LastCheckpoint:
    """Return the ``LastCheckpoint`` callback of a trainer."""
    callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return next(callback for callback in callbacks if isinstance(callback, LastCheckpoint))


class BestCheckpoint(ModelCheckpoint):
    """Keep the checkpoint of the highest validation PSNR.

    Lightning deletes the file that a checkpoint's state names as the former best. Of this state
    only the score is used, and only if its file lies in the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder,
            filename="epoch={epoch:02d}/step={step}-psnr={val/PSNR:.2f}",
            monitor="val/PSNR",
            mode="max",
            auto_insert_metric_name=False,
            enable_version_counter=False,
            # Directly after validation, so that the last.ckpt of the epoch's end has the new score.
            save_on_train_epoch_end=False,
        )
        self.folder = folder

    @property
    def state_key(self) -> str:
        """Return the key of Lightning's own class, under which checkpoints hold the state."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the path and the score of the best file, if it exists."""
        recorded, score = state_dict.get("best_model_path"), state_dict.get("best_model_score")
        if not recorded:
            return
        path = self._file_in_run(recorded)
        if path is None or not isinstance(score, torch.Tensor) or score.numel() != 1:
            logger.warning(
                "%r is no best checkpoint in %s: the best is chosen from later validations only",
                *(str(recorded)[:200], self.folder),
            )
            return
        self.best_model_path = self.kth_best_model_path = str(path)
        self.best_model_score = self.kth_value = self.current_score = score
        self.best_k_models = {str(path): score}

    def _file_in_run(self, recorded: object) -> Path | None:
        """Return the recorded file in this run's folder, which may have been moved, or None."""
        if not isinstance(recorded, str):
            return None
        name = "/".join(Path(recorded).parts[-2:])
        path = self.folder.absolute() / name
        inside = path.resolve().is_relative_to(self.folder.resolve())
        return path if _BEST_NAME.fullmatch(name) and inside and path.is_file() else None
