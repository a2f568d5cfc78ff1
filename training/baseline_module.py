"""General training of the baselines, with the data and validation of VGGT-NeRF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from datasets.views import Sample
from evaluation.scores import psnr_from_mse
from models.baselines.mvsnerf.model import MVSNeRF
from models.baselines.point_regression import PointRegression
from models.checkpoints.baselines import KIND
from models.vggt.backbone import load_backbone
from models.volume_rendering import Composite
from training.config import GeneralTrainingConfig
from training.general_module import NovelViewModule
from training.losses import pixel_error
from training.point_supervision import point_losses
from training.ray_batches import draw_pixels
from utils.cameras import pixel_rays


class BaselineModule(NovelViewModule[MVSNeRF | PointRegression]):
    """Training step of MVSNeRF and of the point regression."""

    def compute_loss(self, batch: Sample, generator: torch.Generator) -> Tensor:
        """Return the error of rendered pixels, or of single points."""
        model = self.model
        pixels = self.config.optimizer.batch_size // batch.targets.cameras.shape.numel()
        if isinstance(model, PointRegression) and model.config.point_supervision == "points":
            points = pixels * model.config.points_per_ray
            losses = point_losses(model, batch, points, generator)
            loss, error = losses["fine"] + losses["opacity"], losses["fine"]
            self.log("train/opacity_error", losses["opacity"])
            self.log("train/surface_share", losses["surface_share"])
        else:
            loss = error = self._pixel_loss(batch, pixels, generator)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/PSNR", psnr_from_mse(error.detach()), prog_bar=True)
        return loss

    def _pixel_loss(
        self, batch: Sample, count: int, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Return the squared error of random pixels of every target (Chen et al. 2021, eq. 7)."""
        scene = self.model.encode(batch.sources, batch.near_far)
        # Each of the two models accepts only the scenes that it has encoded.
        render: Callable[..., Composite] = self.model.render_rays
        errors = []
        for index in range(batch.targets.cameras.shape[1]):
            target = batch.targets[:, index]
            pixels, indices = draw_pixels(target, count, generator)
            rays = pixel_rays(target.cameras, pixels)
            rgb = render(scene, rays, batch.near_far, generator).rgb
            errors.append(pixel_error(rgb, target, indices))
        return torch.stack(errors).mean()

    def trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return the trainable parameters of the model."""
        return [pair for pair in self.model.named_parameters() if pair[1].requires_grad]

    def header(self) -> tuple[str, dict[str, Any]]:
        """Return the model's name, the settings and the backbone's fingerprint."""
        model = self.model
        return KIND, {
            "model": self.config.run.model,
            "settings": asdict(self.config),
            "backbone_fingerprint": (
                model.backbone.fingerprint if isinstance(model, PointRegression) else ""
            ),
        }


def build_baseline(config: GeneralTrainingConfig) -> MVSNeRF | PointRegression:
    """Return the baseline of the settings, with random weights."""
    if config.run.model == "mvsnerf":
        return MVSNeRF(config.baselines)
    return PointRegression(config.baselines, config.model.pyramid, load_backbone(config.backbone))
