"""Lightning callbacks and TensorBoard logger: gradients, speed, pictures, progress bar."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Bool, Float
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from datasets.views import Sample
from evaluation.pictures import comparison_panels
from evaluation.scores import ViewImages
from models.novel_view import RenderedImages
from utils.errors import NonFiniteTrainingError
from utils.images import save_image

GRAD_CLIP = 1.0
"""Maximum norm of the gradient."""
MAX_BAD_STEPS = 20
"""Consecutive steps with non-finite gradients after which a run stops."""
READ_EVERY = 20
"""Steps between reads of the norms' finiteness, each of which waits for the device."""
_WINDOW = 20
"""Steps between logs of the speed."""
_PICTURES, _SOURCES = 4, 3
"""Validation views that are saved, and sources shown with each."""
_REMEDY = "Lower --lrate, use full precision or look at the data, then resume with --ckpt."


def tensorboard_logger(folder: Path, config: Any) -> TensorBoardLogger:  # noqa: ANN401
    """Return a logger that writes to ``folder/logs``, with all settings (a dataclass)."""
    logger = TensorBoardLogger(folder, name="", version="logs")
    logger.log_hyperparams(asdict(config))
    return logger


class ShortProgressBar(RichProgressBar):
    """Progress bar in one line, with PSNR and bad steps only."""

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the PSNR of training/validation, and the number of bad steps if there are any."""
        metrics = super().get_metrics(trainer, pl_module)
        quality = [metrics[name] for name in ("train/PSNR", "val/PSNR") if name in metrics]
        shown = {"PSNR": "/".join(f"{value:.1f}" for value in quality)} if quality else {}
        bad = metrics.get("train/bad_steps")
        return {**shown, "bad steps": bad} if bad else {**shown}


class GradientGuard(Callback):
    """Clip gradients, and skip and count steps with non-finite gradients.

    A fused optimiser skips a step on the device, so that the host reads the outcomes only every
    ``READ_EVERY`` steps. With other optimisers the host reads every step.
    """

    def __init__(self, max_bad_steps: int = MAX_BAD_STEPS, remedy: str = _REMEDY) -> None:
        """Set the limit of consecutive bad steps, and the advice in the error message."""
        self.max_bad_steps, self.remedy = max_bad_steps, remedy
        self.bad_steps = self.bad_steps_in_a_row = 0
        self._unread: list[Bool[Tensor, ""]] = []

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Clip or skip, and log gradient norm and learning rate."""
        norm = self.apply(optimizer, trainer.global_step)
        rate = optimizer.param_groups[0]["lr"]
        pl_module.log_dict({"train/grad_norm": norm, "train/lrate": rate})
        if self.bad_steps:
            pl_module.log("train/bad_steps", float(self.bad_steps), prog_bar=True)

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> Float[Tensor, ""]:
        """Clip the gradient, already reduced over devices, or skip the step; return the norm."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, GRAD_CLIP)
        bad = ~torch.isfinite(norm)
        self._unread.append(bad)
        fused = all(group.get("fused") for group in optimizer.param_groups)
        if fused:
            # The attribute by which PyTorch's gradient scaler makes fused optimisers skip.
            optimizer.found_inf = bad.float()  # pyright: ignore[reportAttributeAccessIssue]
        elif bad:
            # Optimisers skip parameters without a gradient.
            optimizer.zero_grad(set_to_none=True)
        due = not fused or len(self._unread) >= READ_EVERY
        if due and self.state()[1] >= self.max_bad_steps:
            raise NonFiniteTrainingError(
                f"{self.bad_steps_in_a_row} steps in a row had non-finite gradients, the last at "
                f"step {step}; the weights are those before the first of them. {self.remedy}"
            )
        return norm

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise if the last steps were bad, in a run too short to reach the limit."""
        bad_steps, in_a_row = self.state()
        # A single bad step may be an isolated overflow.
        if in_a_row > 1 and in_a_row >= min(self.max_bad_steps, trainer.global_step):
            raise NonFiniteTrainingError(
                f"the last {in_a_row} steps had non-finite gradients; the weights are those before "
                f"the first of them. {self.remedy}"
            )

    def state(self) -> list[int]:
        """Return the number of bad steps, in all and in a row."""
        for bad in torch.stack(self._unread).tolist() if self._unread else ():
            self.bad_steps += bad
            self.bad_steps_in_a_row = self.bad_steps_in_a_row + 1 if bad else 0
        self._unread.clear()
        return [self.bad_steps, self.bad_steps_in_a_row]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the counters."""
        checkpoint["bad_steps"] = self.state()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the counters; files of early versions have none."""
        self.bad_steps, self.bad_steps_in_a_row = checkpoint.get("bad_steps", [0, 0])


class Throughput(Callback):
    """Log pixels per second of all devices, seconds per step and peak memory."""

    def __init__(self, pixels_per_step: int) -> None:
        self.pixels_per_step = pixels_per_step
        self._started, self._steps = 0.0, 0

    def on_train_batch_start(self, *args: object, **kwargs: object) -> None:
        """Start the clock after a validation or the start of the run."""
        if self._steps == 0:
            self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object
    ) -> None:
        """Log every ``_WINDOW`` steps."""
        self._steps += 1
        if self._steps == _WINDOW:
            seconds = time.perf_counter() - self._started
            rate = self.pixels_per_step * trainer.world_size * self._steps / seconds
            pl_module.log("pixels/s", rate, prog_bar=True, rank_zero_only=True)
            pl_module.log("train/seconds_per_step", seconds / self._steps, rank_zero_only=True)
            if pl_module.device.type == "cuda":
                peak = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
                pl_module.log("train/peak_memory_GiB", peak, rank_zero_only=True)
            self._steps = 0

    def on_validation_start(self, *args: object) -> None:
        """Exclude validation from the timing."""
        self._steps = 0


class ValidationPictures(Callback):
    """Save sources, truth, prediction, error and depths of the first validation views."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @rank_zero_only
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: RenderedImages,
        batch: Sample,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save one view as a PNG file and to TensorBoard."""
        if batch_idx >= _PICTURES or trainer.sanity_checking:
            return
        view = ViewImages.pair(outputs, batch.targets[:, 0], 0)
        panels = comparison_panels(view, batch.near_far[0].tolist())
        sources = batch.sources.images[0, :_SOURCES]
        strip = torch.cat([*sources, *panels.values()], -1).cpu()
        target = batch.target_ids[0]
        name = f"{batch.scene[0]}_view{target[0] if isinstance(target, tuple) else target:03d}"
        save_image(self.folder / f"step={trainer.global_step:07d}_{name}.png", strip)
        if trainer.logger is not None:
            trainer.logger.experiment.add_image(f"val/{name}", strip, trainer.global_step)  # pyright: ignore
