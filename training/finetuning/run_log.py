"""Callback that validates, saves and logs a fine-tuning run, and the format of its files."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from evaluation.pictures import comparison_panels
from evaluation.rendering import TestViews
from evaluation.scores import psnr_from_mse
from models.checkpoints.scene_file import SceneHeader, read_scene_file, scene_content
from models.scenes.scene_model import TunableScene
from training.checkpointing import AtomicCheckpointIO, LastCheckpoint
from training.config import SceneRunConfig
from training.finetuning.module import TuningModule
from utils.checkpoints import save_atomically
from utils.errors import NonFiniteTrainingError, UserError
from utils.figures import Panel, contact_sheet
from utils.files import set_aside, write_text
from utils.images import save_image

logger = logging.getLogger(__name__)

_HEADING = "   step  seconds  training  test PSNR    gain"
_LOG_EVERY = 100


class SceneCheckpointIO(AtomicCheckpointIO):
    """Lightning's checkpoints of a fine-tuned scene as scene files, which can be rendered."""

    def __init__(self, folder: Path, header: SceneHeader) -> None:
        """Store the folder of the run and the header of its files."""
        super().__init__(folder)
        self.header = header

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, **_: object) -> None:
        """Write the averaged scene with optimiser, trained weights and curve."""
        progress = {
            "step": checkpoint["global_step"],
            "optimizer": checkpoint["optimizer_states"][0],
            "average": checkpoint["average"],
            "bad_steps": checkpoint["bad_steps"],
        }
        training = {"progress": progress, **checkpoint["log"]}
        save_atomically(scene_content(self.header, checkpoint["state_dict"], training), path)

    def load_checkpoint(self, path: str | Path, **_: object) -> dict[str, Any]:
        """Return Lightning's state without the scene, which is built from the same file."""
        log = dict(read_scene_file(path)["training"])
        progress = log.pop("progress")
        step = progress["step"]
        counts = {"total": {"ready": step, "completed": step}, "current": {}}
        optimizer_progress = {"step": counts, "zero_grad": {"total": {}, "current": {}}}
        loops = {
            "epoch_loop.automatic_optimization.optim_progress": {"optimizer": optimizer_progress},
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


@dataclass
class Best:
    """The scene with the highest validation PSNR so far."""

    psnr: float = float("-inf")
    step: int = -1
    state: dict[str, Tensor] = field(default_factory=dict)

    def update(self, scene: TunableScene, step: int, psnr: float) -> None:
        """Copy the scene if its PSNR is the highest; NaN never is."""
        if not psnr > self.psnr:
            return
        self.psnr, self.step = psnr, step
        trained = {name for name, value in scene.named_parameters() if value.requires_grad}
        # Constant tensors are shared, not copied.
        self.state = {
            name: value.detach().clone() if name in trained else value
            for name, value in scene.scene_state().items()
        }


class RunLog(LastCheckpoint):
    """Validates and saves periodically; holds the curve, the clock and the best scene.

    The clock includes reading, encoding, validating and saving; training time excludes these.
    """

    def __init__(
        self,
        folder: Path,
        config: SceneRunConfig,
        header: SceneHeader,
        tests: TestViews,
        started: float,
    ) -> None:
        """Rename the files of an earlier run; ``started`` is a time of ``time.perf_counter``."""
        super().__init__(folder / "ckpts", config.save_every, "latest.tar")
        self.folder, self.config, self.header, self.tests = folder, config, header, tests
        self.best_path = self.path.with_name("best.tar")
        self.curve: list[dict[str, Any]] = []
        self.best, self._saved_best = Best(), -1
        self._started, self._paused = started, 0.0
        self._losses: list[Tensor] = []
        if not config.ckpt or Path(config.ckpt).resolve() != self.path.resolve():
            set_aside(self.path)
            set_aside(self.best_path)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore curve, clock and best scene."""
        log, path = checkpoint["log"], Path(str(trainer.ckpt_path))
        self.curve, best = log["curve"], log["best"]
        self._started = time.perf_counter() - log["seconds"]
        self._paused = log["paused"]
        # latest.1.tar of an earlier run belongs to best.1.tar.
        number = path.name.removeprefix("latest") if path.name.startswith("latest") else ".tar"
        file = path.with_name(f"best{number}")
        if not file.is_file() and best["step"] != checkpoint["global_step"]:
            logger.warning("%s is missing: the best is chosen from later validations only", file)
            return
        # A run stopped before its first best.tar has the same scene in latest.tar.
        state = read_scene_file(file if file.is_file() else path)["state"]
        self.best = Best(best["psnr"], best["step"], state)
        if file.is_file() and file == self.best_path:
            self._saved_best = best["step"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: TuningModule) -> None:
        """Print the curve so far; start a new one with a validation."""
        logger.info("%s", _HEADING)
        for row in self.curve:
            self._print(row)
        if not self.curve:
            # All the time so far was preparation.
            self._paused = time.perf_counter() - self._started
            self._validate(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save before the first step, so that a run stopped at any time can be resumed."""
        super().on_train_start(trainer, pl_module)
        if trainer.global_step == 0 and not self.path.exists():
            self.save(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: TuningModule,
        outputs: dict[str, Tensor],
        *args: object,
    ) -> None:
        """Log the training error, validate and save if due."""
        step = trainer.global_step
        self._losses.append(torch.stack([outputs["loss"], outputs["squared_error"]]).detach())
        if step % _LOG_EVERY == 0:
            loss, error = torch.stack(self._losses).mean(0)
            self._losses.clear()
            self._add_scalar(trainer, "train/loss", loss.item())
            self._add_scalar(trainer, "train/PSNR", psnr_from_mse(error).item())
        if step % self.config.val_every == 0 or step == trainer.max_steps:
            self._validate(trainer, module)
        super().on_train_batch_end(trainer, module, outputs, *args)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save a diverged run, whose weights are those before the first bad step."""
        if isinstance(exception, NonFiniteTrainingError):
            self.save(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write a new ``best.tar`` before the ``latest.tar`` that refers to it.

        Only the first ``latest.tar`` is written earlier, so that ``best.tar`` never exists alone.
        """
        if self.path.exists():
            self._save_best()
        checkpoint["log"] = {
            "curve": self.curve,
            "seconds": time.perf_counter() - self._started,
            "paused": self._paused,
            "best": {"step": self.best.step, "psnr": self.best.psnr},
        }

    def save(self, trainer: pl.Trainer) -> None:
        """Write ``latest.tar`` unless this step is saved, and ``best.tar`` if it is new."""
        with self.paused():
            super().save(trainer)
            self._save_best()

    def _save_best(self) -> None:
        if self.best.step != self._saved_best:
            save_atomically(scene_content(self.header, self.best.state, {}), self.best_path)
            self._saved_best = self.best.step

    def finish(self, trainer: pl.Trainer, module: TuningModule) -> tuple[int, str]:
        """Restore the best weights if the last are worse than the initial ones.

        Returns the step of the final weights, and a summary as text.
        """
        first, last = self.curve[0]["psnr"], self.curve[-1]["psnr"]
        # Written so that NaN counts as worse.
        worse = not last >= first and bool(self.best.state)
        if worse:
            module.scene.load_scene_state(self.best.state)
            module.average.restart()
            self._saved_step = -1
        if worse or not self.path.exists():
            # A finished run resumed in another folder has taken no step and saved nothing.
            self.save(trainer)
        files = f"the scene is in {self.path}, the best one in {self.best_path}"
        if not worse:
            seconds = self.curve[-1]["seconds"]
            verdict = f"PSNR {first:.2f} before, {last:.2f} after {seconds:.0f} s"
            return trainer.global_step, f"{verdict}\n{files}"
        verdict = (
            f"the final PSNR is below the initial one ({last:.2f} < {first:.2f} dB); latest.tar "
            f"holds the best weights instead, of step {self.best.step} ({self.best.psnr:.2f} dB)"
        )
        return self.best.step, f"{verdict}\n{files}"

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time within the context from the training time."""
        started = time.perf_counter()
        yield
        self._paused += time.perf_counter() - started

    def _validate(self, trainer: pl.Trainer, module: TuningModule) -> None:
        step = trainer.global_step
        with module.average.in_place():
            with self.paused():
                rendered = self.tests.render(module.scene)
                psnr = self.tests.mean_psnr(rendered)
            seconds = time.perf_counter() - self._started
            training = round(seconds - self._paused, 2)
            times = {"seconds": round(seconds, 2), "training_seconds": training}
            self.curve.append({"step": step, **times, "psnr": psnr})
            self._print(self.curve[-1])
            self.best.update(module.scene, step, psnr)
        self._add_scalar(trainer, "val/PSNR", psnr)
        name = f"step={step:07d}_view{self.tests.ids[0]:03d}.jpg"
        with self.paused():
            try:
                panels = comparison_panels(rendered[0], module.scene.near_far.tolist())
                row = [Panel(picture, label) for label, picture in panels.items()]
                sheet = contact_sheet([row])
                save_image(self.folder / "pictures" / name, sheet)
                experiment = trainer.logger.experiment  # pyright: ignore
                experiment.add_image("val/view", sheet, step)  # pyright: ignore
                write_text(self.folder / "curve.json", json.dumps(self.curve, indent=1) + "\n")
            except (OSError, UserError) as error:
                # Not fatal: the trained scene is still to be saved.
                logger.warning("%s: cannot write curve and picture (%s)", self.folder, error)

    def _add_scalar(self, trainer: pl.Trainer, name: str, value: float) -> None:
        trainer.logger.experiment.add_scalar(name, value, trainer.global_step)  # pyright: ignore

    def _print(self, row: dict[str, Any]) -> None:
        gain = row["psnr"] - self.curve[0]["psnr"]
        logger.info(
            "%7d %8.1f %9.1f %10.2f %+7.2f",
            *(row["step"], row["seconds"], row["training_seconds"], row["psnr"], gain),
        )
