"""General training: one model for many scenes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from datasets.views import Sample
from models.vggt_nerf import RenderedImages, VGGTNeRF
from training.camera_noise import CameraNoiseConfig, shake_cameras
from training.exposure import ExposureConfig, vary_exposure
from training.gradient_guard import GradientGuard
from training.losses import LossConfig, PatchDistance, rendering_losses
from training.optimization import OptimizerConfig, build_optimizer
from training.ray_batches import RayBatchConfig, draw_target_rays, render_targets
from training.source_dropout import SourceDropoutConfig, draw_view_mask
from utils.metrics import mean_depth_error, psnr, psnr_from_mse
from utils.seeding import generator_for


@dataclass(frozen=True)
class StepConfig:
    """What a training step draws, minimises and changes."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    rays: RayBatchConfig = field(default_factory=RayBatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    exposure: ExposureConfig = field(default_factory=ExposureConfig)
    dropout: SourceDropoutConfig = field(default_factory=SourceDropoutConfig)
    camera_noise: CameraNoiseConfig = field(default_factory=CameraNoiseConfig)


class GeneralModule(pl.LightningModule):
    """Wire batches, model, losses and logging.

    All randomness of a step is drawn from (seed, step, rank): a resumed run draws the same.
    """

    def __init__(
        self,
        model: VGGTNeRF,
        step: StepConfig,
        settings: dict[str, Any],
        seed: int,
        chunk: int,
        perceptual: PatchDistance | None = None,
    ) -> None:
        """Wire a run.

        Args:
            model: What is trained.
            step: Optimiser, schedule, rays and losses.
            settings: All settings of the run as a plain dict; checkpoints carry them.
            seed: Seeds the choice of rays and samples.
            chunk: Rays in one go at validation.
            perceptual: LPIPS as a loss, if its weights are there.
        """
        super().__init__()
        self.settings = settings
        self.model = model
        self.step = step
        self.seed = seed
        self.chunk = chunk
        self.perceptual = perceptual
        self.guard = GradientGuard(step.optimizer.grad_clip, step.optimizer.max_bad_steps)
        self.depth_errors = torch.zeros(2)
        """Sum and count of the known depth errors of this validation, on this rank."""

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Render random rays of the targets and compare."""
        generator = generator_for(self.device, self.seed, self.global_step, self.global_rank)
        batch = vary_exposure(batch, self.step.exposure, generator)
        batch = shake_cameras(batch, self.step.camera_noise, generator)
        targets, near_far = batch.targets, batch.near_far
        images = targets.images.shape[0] * targets.images.shape[1]
        rays_per_target = self.step.optimizer.batch_size // images
        drawn = draw_target_rays(targets, rays_per_target, self.step.rays, generator)
        view_mask = draw_view_mask(batch.sources, self.step.dropout, generator)
        scene = self.model.encode(batch.sources, near_far, view_mask)
        rendering = render_targets(self.model, scene, targets, near_far, drawn, generator)
        lindisp = self.model.config.rendering.lindisp
        losses = rendering_losses(
            rendering, drawn, near_far, self.step.loss, lindisp, self.perceptual
        )
        self.log("train/loss", losses.total, prog_bar=True)
        self.log("train/PSNR", psnr_from_mse(losses.fine.detach()), prog_bar=True)
        self.log("train/coarse_PSNR", psnr_from_mse(losses.coarse.detach()))
        self.log("train/depth_error", losses.depth)
        self.log("train/plane_entropy", losses.planes)
        self.log("train/dissimilarity", losses.ssim)
        self.log("train/prior_trust", scene.prior.depth_and_confidence()()[:, :, 1].mean())
        return losses.total

    def on_validation_epoch_start(self) -> None:
        """Forget the depth errors of the last validation."""
        self.depth_errors = torch.zeros(2, device=self.device)

    def validation_step(self, batch: Sample, batch_idx: int) -> RenderedImages:
        """Render the first target of each scene whole."""
        scene = self.model.encode(batch.sources, batch.near_far)
        target = batch.targets
        images = self.model.render_images(
            scene, target.cameras[:, 0], batch.near_far, target.size, self.chunk
        )
        masks, depths = target.masks[:, 0], target.depths[:, 0]
        quality = psnr(images.rgb, target.images[:, 0], masks).mean()
        count = len(batch.near_far)
        self.log("val/PSNR", quality, prog_bar=True, sync_dist=True, batch_size=count)
        error = mean_depth_error(images.depth, depths)
        self.depth_errors += torch.stack([error.nansum(), (~error.isnan()).sum()])
        return images

    def on_validation_epoch_end(self) -> None:
        """Log the mean of the depth errors that are known to any rank, if there are some.

        Every rank takes part, whether it knows some or not: the others would wait for it.
        """
        total, count = self.trainer.strategy.reduce(self.depth_errors, reduce_op="sum").tolist()
        if count:
            self.log("val/depth_error", total / count, sync_dist=True)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW on what is trainable, scheduled per step."""
        optimizer, scheduler = build_optimizer(
            self.model.named_parameters(), self.step.optimizer, self._total_steps()
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
