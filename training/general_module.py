"""General training: one model for many scenes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from datasets.views import Sample
from models.vggt_nerf import RenderedImages, VGGTNeRF
from training.augmentation import draw_view_mask, perturb_cameras, vary_exposure
from training.config import GeneralTrainingConfig
from training.losses import perceptual_loss, rendering_losses
from training.optimization import build_optimizer
from training.ray_batches import draw_target_rays, render_targets
from utils.devices import generator_for
from utils.images import mean_depth_error, psnr, psnr_from_mse


class GeneralModule(pl.LightningModule):
    """Wire batches, model, losses and logging.

    All randomness of a step is drawn from (seed, step, rank): a resumed run draws the same.
    """

    def __init__(self, model: VGGTNeRF, config: GeneralTrainingConfig) -> None:
        """Wire a run; its checkpoints carry all its settings."""
        super().__init__()
        self.model = model
        self.config = config
        self.perceptual = perceptual_loss() if config.loss.lpips_weight else None
        self.depth_errors = torch.zeros(2)
        """Sum and count of the known depth errors of this validation, on this rank."""

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Render random rays of the targets and compare."""
        config, seed = self.config, self.config.run.seed
        generator = generator_for(self.device, seed, self.global_step, self.global_rank)
        batch = vary_exposure(batch, generator)
        batch = perturb_cameras(batch, config.augmentation.camera_noise, generator)
        targets, near_far = batch.targets, batch.near_far
        images = targets.images.shape[0] * targets.images.shape[1]
        rays_per_target = config.optimizer.batch_size // images
        drawn = draw_target_rays(targets, rays_per_target, config.rays, generator)
        view_mask = draw_view_mask(batch.sources, config.augmentation.source_dropout, generator)
        scene = self.model.encode(batch.sources, near_far, view_mask)
        rendering = render_targets(self.model, scene, targets, near_far, drawn, generator)
        lindisp = self.model.config.rendering.lindisp
        losses = rendering_losses(rendering, drawn, near_far, config.loss, lindisp, self.perceptual)
        self.log("train/loss", losses.total, prog_bar=True)
        self.log("train/PSNR", psnr_from_mse(losses.fine.detach()), prog_bar=True)
        self.log("train/coarse_PSNR", psnr_from_mse(losses.coarse.detach()))
        self.log("train/depth_error", losses.depth)
        self.log("train/plane_entropy", losses.planes)
        self.log("train/dissimilarity", losses.ssim)
        self.log("train/prior_confidence", scene.prior.depth_and_confidence()[:, :, 1].mean())
        return losses.total

    def on_validation_epoch_start(self) -> None:
        """Forget the depth errors of the last validation."""
        self.depth_errors = torch.zeros(2, device=self.device)

    def validation_step(self, batch: Sample, batch_idx: int) -> RenderedImages:
        """Render the first target of each scene whole."""
        scene = self.model.encode(batch.sources, batch.near_far)
        target = batch.targets
        images = self.model.render_images(
            *(scene, target.cameras[:, 0], batch.near_far, target.size, self.config.run.val_chunk)
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
            self.model.named_parameters(), self.config.optimizer, self._total_steps()
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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rendering needs."""
        checkpoint["vggt_nerf"] = {
            "settings": asdict(self.config),
            "backbone_fingerprint": self.model.backbone.fingerprint,
        }
