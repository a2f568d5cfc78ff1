"""What a run shows while it trains: speed and pictures."""

from __future__ import annotations

import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only

from datasets.views import Sample
from models.vggt_nerf import RenderedImages
from training.pictures import comparison_strip
from utils.images import save_image


class Throughput(Callback):
    """Log rays per second over the last steps, all devices together, and the peak memory."""

    def __init__(self, rays_per_step: int, window: int = 20) -> None:
        self.rays_per_step = rays_per_step
        self.window = window
        self._started = 0.0
        self._steps = 0

    def on_train_batch_start(self, *args: object, **kwargs: object) -> None:
        """Start the clock after a pause (validation, start of the run)."""
        if self._steps == 0:
            self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object
    ) -> None:
        """Log once per window, so that the clock never waits for the device otherwise."""
        self._steps += 1
        if self._steps == self.window:
            seconds = time.perf_counter() - self._started
            rate = self.rays_per_step * trainer.world_size * self._steps / seconds
            pl_module.log("rays/s", rate, prog_bar=True, rank_zero_only=True)
            pl_module.log("train/seconds_per_step", seconds / self._steps, rank_zero_only=True)
            if pl_module.device.type == "cuda":
                peak = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
                pl_module.log("train/peak_memory_GiB", peak, rank_zero_only=True)
            self._steps = 0

    def on_validation_start(self, *args: object) -> None:
        """Leave validation out of the count."""
        self._steps = 0


class ValidationPictures(Callback):
    """Write sources, truth, prediction, error and depth of the first validation views."""

    def __init__(self, folder: Path, count: int = 4) -> None:
        self.folder = folder
        self.count = count

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
        """Write one strip."""
        if batch_idx >= self.count or trainer.sanity_checking:
            return
        strip = comparison_strip(batch, outputs)
        target = batch.target_ids[0]
        name = f"{batch.scene[0]}_view{target[0] if isinstance(target, tuple) else target:03d}"
        save_image(self.folder / f"step={trainer.global_step:07d}_{name}.png", strip)
        if trainer.logger is not None:
            trainer.logger.experiment.add_image(f"val/{name}", strip, trainer.global_step)  # pyright: ignore
