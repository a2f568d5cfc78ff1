"""Lightning module for training the small backbone."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from datasets.procedural.generator import ProceduralBatch
from datasets.views import Views
from models.vggt.aggregator import Aggregator
from models.vggt.network import VGGT, VGGTPrediction
from training.augmentation import jitter_colours
from training.optimization import ResumableSchedule, warmup_cosine
from training.vggt.config import MiniTrainingConfig, OptimizerConfig
from training.vggt.evaluation import geometry_metrics, predict_geometry
from training.vggt.losses import geometry_losses, geometry_targets
from training.vggt.matching import (
    AttentionSupervision,
    MatchingHeads,
    find_matches,
    loss_weight,
    next_views,
    reference_views,
)
from utils.devices import generator_for
from utils.memory import MultipleOf, memory_stage

# Parts of random keys, different from those for shapes, weights and replayed batches.
_COLOUR_STREAM = 1
_ORDER_STREAM = 3
LRATE_END = 0.01
"""Learning rate at the end, as a share of the peak."""
_WEIGHT_DECAY = 0.05
EMA_DECAY = 0.9995


class VGGTMiniModule(pl.LightningModule):
    """Wire scenes, network, losses, weight averaging and logging.

    The randomness of a step depends on (seed, step, rank) only, so that a resumed run is exact. The
    trainer must not apply autocast: cameras and points need full precision.
    """

    def __init__(self, network: VGGT, config: MiniTrainingConfig) -> None:
        super().__init__()
        assert isinstance(network.aggregator, Aggregator)
        self.network = network
        self.average: VGGT = deepcopy(network).requires_grad_(False).eval()
        self.matching = MatchingHeads(network.config.token_dim)
        self.attention = AttentionSupervision(network.aggregator)
        self.config = config

    def training_step(self, batch: ProceduralBatch, batch_idx: int) -> Tensor:
        """Return the loss of the geometry predicted for procedural scenes."""
        views, step, seed = batch.views, self.global_step, self.config.run.training_seed
        order = generator_for("cpu", seed, _ORDER_STREAM, step, self.global_rank)
        views = views.take(torch.randperm(views.images.shape[1], generator=order).tolist())
        generator = generator_for(self.device, seed, _COLOUR_STREAM, step, self.global_rank)
        prediction, layers = self.predict(jitter_colours(views.images, generator))
        losses = geometry_losses(prediction, geometry_targets(views))
        for name, value in losses.items():
            self.log(f"train/{name}", value, prog_bar=name in ("loss", "camera"))
        return losses["loss"] + self._matching_loss(layers, views)

    def predict(self, images: Tensor) -> tuple[VGGTPrediction, tuple[Tensor, ...]]:
        """Run the network in training precision; also return the patch tokens that heads read."""
        size = (images.shape[-2], images.shape[-1])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._uses_bf16()):
            layers, patch_start = self.network.aggregator(images)
            dense = self.network.predict(layers, size, ("depth", "points"), full_precision=False)
        camera = self.network.predict(layers, size, ("camera",))
        prediction = replace(dense, pose_enc=camera.pose_enc, pose_encodings=camera.pose_encodings)
        return prediction, tuple(layer[:, :, patch_start:] for layer in layers)

    def validation_step(self, batch: ProceduralBatch, batch_idx: int) -> None:
        """Log the metrics of the averaged weights on held-out scenes."""
        views = batch.views
        metrics = geometry_metrics(*predict_geometry(self.average, views), views)
        for name, value in metrics.items():
            on_bar = name in ("abs_rel", "auc_30")
            self.log(f"val/{name}", value, on_bar, sync_dist=True, batch_size=len(views.images))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW for network and matching heads, and its schedule per step."""
        trained = (*self.network.named_parameters(), *self.matching.named_parameters())
        optimizer, schedule = build_optimizer(trained, self.config.optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Update the weights and their average."""
        step, curriculum = self.global_step, self.config.curriculum
        patches = MultipleOf(curriculum.patches_per_step, curriculum.most_patches)
        with memory_stage("a step of training", self.device, patches_per_step=patches):
            super().optimizer_step(*args, **kwargs)
        update_average(self.average, self.network, step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the settings to the checkpoint."""
        checkpoint["vggt_mini"] = asdict(self.config)

    def _matching_loss(self, layers: tuple[Tensor, ...], views: Views) -> Tensor:
        weight = loss_weight(self.global_step, self.config.optimizer.matching_until)
        if weight == 0:
            self.attention.clear()
            # Distributed training requires a gradient for every parameter in every step.
            return 0.0 * torch.stack([p.sum() for p in self.matching.parameters()]).sum()
        patch, count = self.config.network.patch_size, views.images.shape[1]
        matches = find_matches(views, next_views(count), patch)
        matching = self.matching.feature_loss(layers, matches.patches)
        others = reference_views(count)
        matches = find_matches(views, others, patch)
        attention = self.attention.loss(matches.patches, others)
        shift = self.matching.shift_loss(layers, matches)
        self.log("train/matching", matching.loss)
        self.log("train/matched", matching.accuracy, prog_bar=True)
        self.log("train/attention", attention.loss)
        self.log("train/attended", attention.accuracy, prog_bar=True)
        self.log("train/shift", shift)
        return weight * (matching.loss + attention.loss + shift)

    def _uses_bf16(self) -> bool:
        precision = self.config.run.network_precision
        return precision == "bf16" or (precision == "auto" and self.device.type == "cuda")


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, step: int) -> None:
    """Update an exponential moving average, whose decay rises from 0.1 at step 0."""
    update = get_ema_multi_avg_fn(min(EMA_DECAY, (1 + step) / (10 + step)))
    update(list(average.parameters()), list(network.parameters()), step)


def build_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig
) -> tuple[torch.optim.AdamW, ResumableSchedule]:
    """Return AdamW for the trainable parameters, and its schedule per step.

    Vectors and tokens have no weight decay.
    """
    decayed, exempt = [], []
    for name, parameter in parameters:
        if parameter.requires_grad:
            is_vector = parameter.ndim < 2 or "token" in name or "pos_embed" in name
            (exempt if is_vector else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": _WEIGHT_DECAY},
        {"params": exempt, "weight_decay": 0.0},
    ]
    on_gpu = any(parameter.is_cuda for parameter in decayed)
    optimizer = torch.optim.AdamW(groups, lr=config.lrate, betas=(0.9, 0.95), fused=on_gpu)
    warmup = min(config.warmup_steps, max(config.max_steps // 2, 1))
    # The rate of the first step is above 0, and one step has the peak rate.
    steps = {"warmup_steps": warmup - 1, "total_steps": config.max_steps - 1, "hold": 1}
    return optimizer, warmup_cosine(optimizer, end_share=LRATE_END, **steps)
