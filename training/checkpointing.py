"""How and when a run saves, and what a resumed one must have in common with it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only

from models.checkpoint import SceneHeader, read_scene_file, scene_content
from training.config import GeneralTrainingConfig
from training.vggt.config import MiniTrainingConfig
from utils.checkpoints import load_safely, save_atomically
from utils.config import differing_settings, settings_from_plain
from utils.errors import TrainingInterrupted, UserError, first_line, is_memory_error
from utils.files import locked_folder, remove_partial_files, set_aside

logger = logging.getLogger(__name__)

# To agree on whether to stop, ranks wait for their devices; they do not do so after every step.
AGREE_EVERY = 10


@contextmanager
def folder_of_one_run(folder: Path) -> Iterator[None]:
    """Keep other runs out of a run's folder inside; clear it of what a killed one half wrote.

    The first of several ranks does so for all: on a file system that machines share, the others
    would else be refused as other runs.
    """
    # Lightning learns a machine's number when the trainer is built, which is later.
    machine = os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or "0"
    if rank_zero_only.rank or machine != "0":  # pyright: ignore[reportFunctionMemberAccess]
        yield
        return
    remedy = "Give this run a name of its own with --expname, or wait for the other one."
    with locked_folder(folder, remedy):
        remove_partial_files(folder)
        yield


@contextmanager
def restored(path: str | Path | None, trainer: pl.Trainer) -> Iterator[None]:
    """Let a run inside that resumes a file fail with one error if its state cannot be restored."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if is_memory_error(error):
            raise
        if path is None or last_checkpoint(trainer).begun:
            raise
        raise UserError(
            f"{path}: its state of training is damaged or of another run, and cannot be resumed "
            f"({type(error).__name__}: {first_line(error)}). Resume from an earlier file."
        ) from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files through ``utils.files``."""

    def __init__(self, folder: Path) -> None:
        """Set the folder of the run, outside of which nothing is ever removed."""
        self.folder = folder

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, **_: object) -> None:
        """Write the file whole or not at all."""
        save_atomically(checkpoint, path)

    def load_checkpoint(self, path: str | Path, **_: object) -> dict[str, Any]:
        """Read the file as plain data, whatever the caller asks for."""
        return load_safely(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a file of the run, and its epoch folder when that is left empty."""
        path = Path(path)
        # A link is removed, not what it points to.
        place = path.parent.resolve()
        if not place.is_relative_to(self.folder.resolve()) or path.suffix != ".ckpt":
            logger.warning("%s: not removed, since it is no checkpoint in %s", path, self.folder)
            return
        path.unlink(missing_ok=True)
        folder = path.parent
        if folder.name.startswith("epoch=") and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


class SceneCheckpointIO(AtomicCheckpointIO):
    """Lightning's checkpoints of a fine-tuned scene as scene files, which can be rendered."""

    def __init__(self, folder: Path, header: SceneHeader) -> None:
        """Keep the folder of the run and the header of every file."""
        super().__init__(folder)
        self.header = header

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, **_: object) -> None:
        """Write the averaged scene, the optimiser and the run's curve."""
        progress = {
            "step": checkpoint["global_step"],
            "optimizer": checkpoint["optimizer_states"][0],
            "average": checkpoint["average"],
            "bad_steps": checkpoint["bad_steps"],
        }
        training = {"progress": progress, **checkpoint["log"]}
        save_atomically(scene_content(self.header, checkpoint["state_dict"], training), path)

    def load_checkpoint(self, path: str | Path, **_: object) -> dict[str, Any]:
        """Return what Lightning resumes from; the scene itself is built from the same file."""
        log = dict(read_scene_file(path)["training"])
        progress = log.pop("progress")
        step = progress["step"]
        none: dict[str, Any] = {"total": {}, "current": {}}
        taken = {"total": {"ready": step, "completed": step}, "current": {}}
        steps = {"optimizer": {"step": taken, "zero_grad": none}}
        loops = {
            "epoch_loop.automatic_optimization.optim_progress": steps,
            "epoch_loop.state_dict": {"_batches_that_stepped": step},
        }
        return {
            "state_dict": {},
            "optimizer_states": [progress["optimizer"]],
            "lr_schedulers": [{"last_epoch": step}],
            "loops": {"fit_loop": loops},
            "callbacks": {},
            "global_step": step,
            "epoch": 0,
            "pytorch-lightning_version": version("pytorch-lightning"),
            "average": progress["average"],
            "bad_steps": progress["bad_steps"],
            "log": log,
        }


class LastCheckpoint(Callback):
    """Write a checkpoint every so many steps, at the end, and on SIGTERM or Ctrl-C.

    A signal is honoured at the end of the step under way, where the state is whole (with several
    ranks: within ``AGREE_EVERY`` steps); a second one of the same kind acts at once. During
    Lightning's validation the run stops after the picture under way: the step before it is already
    saved.
    """

    def __init__(self, folder: Path, every_n_steps: int, name: str = "last.ckpt") -> None:
        self.path = folder / name
        self.every_n_steps = every_n_steps
        self.begun = False
        """Whether all is restored and the first step is next."""
        self._signum = 0
        self._saved_step = -1

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let SIGTERM end a run that has nothing to save; Lightning would put it off."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if trainer.received_sigterm:
            signal.raise_signal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals from Lightning, which would abandon the step under way.

        The file of another run is kept under another name: by now every rank has read what it
        starts from.
        """
        resumed = Path(trainer.ckpt_path).resolve() if trainer.ckpt_path else None
        if trainer.is_global_zero and resumed != self.path.resolve():
            set_aside(self.path)
        self.begun = True
        self._signum = signal.SIGTERM if trainer.received_sigterm else 0
        # Lightning gives them back in the end.
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._remember)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        """Save when it is time or when a signal has come."""
        signum = self._agreed_signal(trainer)
        epoch_ends = trainer.fit_loop.epoch_loop._num_ready_batches_reached()
        if signum or trainer.global_step % self.every_n_steps == 0 or epoch_ends:
            self.save(trainer)
        if signum:
            raise TrainingInterrupted(signum, self.path)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: object, **kwargs: object) -> None:
        """Stop in the middle of a validation."""
        if signum := self._agreed_signal(trainer):
            raise TrainingInterrupted(signum, self.path)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the end of the epoch save again: this validation is done."""
        self._saved_step = -1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the end of the epoch."""
        self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Write the file, unless it is of this step."""
        if trainer.sanity_checking or trainer.global_step == self._saved_step:
            return
        # Of saving: optimiser and loops too. Loading is always weights-only.
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_step = trainer.global_step

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        if self._signum == signum:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        self._signum = signum

    def _agreed_signal(self, trainer: pl.Trainer) -> int:
        if trainer.world_size == 1:
            return self._signum
        if trainer.training and trainer.global_step % AGREE_EVERY:
            return 0
        received = torch.tensor(self._signum, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(received, op=torch.distributed.ReduceOp.MAX)
        return int(received)


def last_checkpoint(trainer: pl.Trainer) -> LastCheckpoint:
    """Return what saves for a trainer."""
    callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return next(one for one in callbacks if isinstance(one, LastCheckpoint))


def check_resumed_settings(
    path: Path,
    config: GeneralTrainingConfig | MiniTrainingConfig,
    saved: dict[str, Any],
    structural: tuple[str, ...],
    ignored: tuple[str, ...],
    restart: str,
) -> None:
    """Refuse settings that the saved state does not fit, and name other changes.

    ``saved`` are the settings in the checkpoint, as any version saved them. Prefixes name those
    that decide what its state means (``structural``) and those that do not change the training
    (``ignored``). The flag ``restart`` starts a new run from the weights of another.
    """
    theirs = settings_from_plain(type(config), saved, f"{path}: settings")
    differing = differing_settings(asdict(config), asdict(theirs))
    breaking = [row for row in differing if row[0].startswith(structural)]
    if breaking:
        raise UserError(
            f"{path}: cannot be resumed with other settings: {describe_differences(breaking)}. "
            f"Use the run's own settings, or {restart} to start a new run from its weights."
        )
    changed = [row for row in differing if not row[0].startswith(ignored)]
    if changed:
        logger.warning("resuming %s with changed settings: %s", path, describe_differences(changed))


def describe_differences(rows: list[tuple[str, Any, Any]]) -> str:
    """Return in one line the settings that differ, with our value and theirs."""
    return ", ".join(f"{name}={ours!r} here, {theirs!r} there" for name, ours, theirs in rows)
