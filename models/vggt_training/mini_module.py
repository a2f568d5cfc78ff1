"""Training of the small backbone: the wiring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from datasets.replay import RenderedBatches, StepPlans
from datasets.views import Views
from models.training.gradient_guard import GradientGuard
from models.vggt.block import compile_blocks
from models.vggt.network import VGGT, VGGTPrediction
from models.vggt_training.attention import AttentionTeacher
from models.vggt_training.ema import averaged_copy, update_average
from models.vggt_training.evaluation import geometry_metrics
from models.vggt_training.held_out import network_predictor
from models.vggt_training.jitter import jitter_colours
from models.vggt_training.losses import geometry_losses
from models.vggt_training.matching import (
    MatchingHeads,
    find_matches,
    next_views,
    reference_views,
)
from models.vggt_training.mini_config import MiniTrainingConfig
from models.vggt_training.optimization import build_mini_optimizer
from models.vggt_training.targets import geometry_targets
from utils.seeding import generator_for

# Apart from the streams of shapes and weights, which use the seed alone, and of replayed batches.
COLOUR_STREAM = 1
ORDER_STREAM = 3


class VGGTMiniModule(pl.LightningModule):
    """Wire scenes, network, losses, averaging and logging.

    Everything random in a step is drawn from (seed, step, rank), and the scenes that the loader
    plans are numbered by step and rank: a resumed run goes on exactly. The trainer must not add
    autocast of its own, since cameras and points need full precision; the network's is chosen here.
    """

    def __init__(
        self,
        network: VGGT,
        make_renderer: Callable[[torch.device], Callable[[Any], Views]],
        config: MiniTrainingConfig,
    ) -> None:
        """Wire a run.

        Args:
            network: What is trained.
            make_renderer: Called once, with the device that the trainer has given to this process.
            config: All settings; checkpoints carry them.
        """
        super().__init__()
        self.network = network
        self.average: VGGT = averaged_copy(network)  # pyright: ignore[reportAttributeAccessIssue]
        self.matching = MatchingHeads(network.config.token_dim, config.matching)
        self.teacher = AttentionTeacher(network.aggregator, config.matching)
        self.rendered: RenderedBatches[Views] = RenderedBatches(config.replay)
        self._make_renderer = make_renderer
        self._renderer: Callable[[Any], Views] | None = None
        self.config = config
        self.guard = GradientGuard(config.optimizer.grad_clip, config.optimizer.max_bad_steps)
        if config.run.compile_blocks:
            blocks = network.aggregator.global_blocks
            taught = [blocks[index] for index in config.matching.attention_blocks]
            compile_blocks(network, dynamic=True, except_for=taught)

    def render(self, prepared: Any) -> Views:  # noqa: ANN401
        """Render planned scenes on this process's device."""
        if self._renderer is None:
            self._renderer = self._make_renderer(self.device)
        return self._renderer(prepared)

    def training_step(self, batch: StepPlans, batch_idx: int) -> Tensor:
        """Render scenes, look at them and compare."""
        step, plans = batch
        assert step == self.global_step, "the loader has lost step with the run"
        config, seed = self.config, self.config.run.training_seed
        views = self.rendered.take(step, seed, plans, self.render)
        order = generator_for("cpu", seed, ORDER_STREAM, step, self.global_rank)
        views = views.take(torch.randperm(views.images.shape[1], generator=order).tolist())
        generator = generator_for(self.device, seed, COLOUR_STREAM, step, self.global_rank)
        images = jitter_colours(views.images, config.jitter, generator)
        prediction, layers = self.predict(images)
        losses = geometry_losses(prediction, geometry_targets(views), config.loss)
        self.log("train/loss", losses.total, prog_bar=True)
        self.log("train/camera", losses.camera, prog_bar=True)
        self.log("train/depth", losses.depth)
        self.log("train/points", losses.points)
        return losses.total + self._matching_loss(layers, views)

    def predict(self, images: Tensor) -> tuple[VGGTPrediction, tuple[Tensor, ...]]:
        """Run the network in its training precision; return also the layers that heads read."""
        size = (images.shape[-2], images.shape[-1])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._uses_bf16()):
            layers, patch_start = self.network.aggregator(images)
            dense = self.network.predict(layers, size, ("depth", "points"), full_precision=False)
        camera = self.network.predict(layers, size, ("camera",))
        prediction = replace(dense, pose_enc=camera.pose_enc, pose_encodings=camera.pose_encodings)
        return prediction, tuple(layer[:, :, patch_start:] for layer in layers)

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Judge the averaged weights on held-out scenes."""
        views = self.render(batch)
        metrics = geometry_metrics(*network_predictor(self.average)(views), views)
        for name, value in metrics.means().items():
            on_bar = name in ("abs_rel", "auc_30")
            self.log(f"val/{name}", value, on_bar, sync_dist=True, batch_size=len(views.images))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW on network and matching heads, scheduled per step."""
        trained = (*self.network.named_parameters(), *self.matching.named_parameters())
        optimizer, scheduler = build_mini_optimizer(trained, self.config.optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient, or drop it if it is not finite."""
        self.log("train/grad_norm", self.guard.apply(optimizer, self.global_step))
        self.log("train/lrate", optimizer.param_groups[0]["lr"])

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Update the weights, then their average, before anything can be saved."""
        step = self.global_step
        super().optimizer_step(*args, **kwargs)
        update_average(self.average, self.network, self.config.optimizer.ema_decay, step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the settings."""
        checkpoint["vggt_mini"] = asdict(self.config)

    def _matching_loss(self, layers: tuple[Tensor, ...], views: Views) -> Tensor:
        config = self.config.matching
        presence = config.presence(self.global_step)
        if presence == 0:
            self.teacher.forget()
            # Distributed training wants every parameter in every step.
            return 0.0 * torch.stack([p.sum() for p in self.matching.parameters()]).sum()
        patch, count = self.config.network.patch_size, views.images.shape[1]
        found = find_matches(views, next_views(count), patch, config.matching_tolerance)
        matching = self.matching.match(layers, found.patches)
        others = reference_views(count)
        found = find_matches(views, others, patch, config.matching_tolerance)
        attention = self.teacher.judge(found.patches, others)
        shift = self.matching.tell_shifts(layers, found)
        self.log("train/matching", matching.loss)
        self.log("train/matched", matching.accuracy, prog_bar=True)
        self.log("train/attention", attention.loss)
        self.log("train/attended", attention.accuracy, prog_bar=True)
        self.log("train/shift", shift)
        return presence * (
            config.matching_weight * matching.loss
            + config.attention_weight * attention.loss
            + config.shift_weight * shift
        )

    def _uses_bf16(self) -> bool:
        precision = self.config.run.network_precision
        return precision == "bf16" or (precision == "auto" and self.device.type == "cuda")
