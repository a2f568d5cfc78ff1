"""General training: one model for many scenes."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from datasets.views import Sample
from models.training.gradient_guard import GradientGuard
from models.training.losses import LossConfig, rendering_losses
from models.training.optimization import OptimizerConfig, build_optimizer
from models.training.ray_batches import draw_target_rays
from models.vggt_nerf import RenderedImages, VGGTNeRF
from utils.metrics import mean_depth_error, psnr, psnr_from_mse
from utils.seeding import generator_for


class GeneralModule(pl.LightningModule):
    """Wire batches, model, losses and logging.

    All randomness of a step is drawn from (seed, step, rank): a resumed run draws the same.
    """

    def __init__(
        self,
        model: VGGTNeRF,
        optimizer_config: OptimizerConfig,
        loss_config: LossConfig,
        settings: dict[str, Any],
        seed: int,
        chunk: int,
    ) -> None:
        """Wire a run.

        Args:
            model: What is trained.
            optimizer_config: Optimiser, schedule and rays per step.
            loss_config: Weights of the loss terms.
            settings: All settings of the run as a plain dict; checkpoints carry them.
            seed: Seeds the choice of rays and samples.
            chunk: Rays in one go at validation.
        """
        super().__init__()
        self.settings = settings
        self.model = model
        self.optimizer_config = optimizer_config
        self.loss_config = loss_config
        self.seed = seed
        self.chunk = chunk
        self.guard = GradientGuard(optimizer_config.grad_clip, optimizer_config.max_bad_steps)

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Render random rays of the targets and compare."""
        generator = generator_for(self.device, self.seed, self.global_step, self.global_rank)
        rays_per_scene = self.optimizer_config.batch_size // len(batch.near_far)
        rays, truth = draw_target_rays(batch.targets, rays_per_scene, generator)
        scene = self.model.encode(batch.sources)
        rendering = self.model.render(scene, rays, batch.near_far, generator)
        losses = rendering_losses(rendering, truth, batch.near_far, self.loss_config)
        self.log("train/loss", losses.total, prog_bar=True)
        self.log("train/PSNR", psnr_from_mse(losses.fine.detach()), prog_bar=True)
        self.log("train/coarse_PSNR", psnr_from_mse(losses.coarse.detach()))
        self.log("train/depth_error", losses.depth)
        return losses.total

    def validation_step(self, batch: Sample, batch_idx: int) -> RenderedImages:
        """Render the first target of each scene whole."""
        scene = self.model.encode(batch.sources)
        target = batch.targets
        images = self.model.render_images(
            scene, target.cameras[:, 0], batch.near_far, target.size, self.chunk
        )
        masks, depths = target.masks[:, 0], target.depths[:, 0]
        quality = psnr(images.rgb, target.images[:, 0], masks).mean()
        count = len(batch.near_far)
        self.log("val/PSNR", quality, prog_bar=True, sync_dist=True, batch_size=count)
        error = mean_depth_error(images.depth, depths)
        if not error.isnan().any():
            self.log("val/depth_error", error.mean(), sync_dist=True, batch_size=count)
        return images

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW on what is trainable, scheduled per step."""
        optimizer, scheduler = build_optimizer(
            self.model.parameters(), self.optimizer_config, self._total_steps()
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _total_steps(self) -> int:
        # Not `estimated_stepping_batches`: it makes Lightning set up the data before it has
        # restored the loader's place, and that place would then be forgotten.
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        return data.batches_per_epoch * int(self.trainer.max_epochs or 1)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient, or drop it if it is not finite."""
        norm = self.guard.apply(optimizer, self.global_step)
        rate = optimizer.param_groups[0]["lr"]
        self.log_dict({"train/grad_norm": norm, "train/lrate": rate})
        if self.guard.bad_steps:
            self.log("train/bad_steps", float(self.guard.bad_steps), prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rendering needs, and the counters."""
        checkpoint["vggt_nerf"] = {
            "settings": self.settings,
            "backbone_fingerprint": self.model.backbone.fingerprint,
        }
        checkpoint["bad_steps"] = self.guard.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counters."""
        self.guard.restore(checkpoint["bad_steps"])
