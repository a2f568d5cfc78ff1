"""General training of the baselines, on the samples and with the validation of VGGT-NeRF's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
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
from training.pixels import draw_pixels, pixel_error
from training.point_supervision import point_losses
from utils.cameras import pixel_rays


class BaselineModule(NovelViewModule[MVSNeRF | PointRegression]):
    """Wire batches, a baseline, its loss and logging."""

    def learn(self, batch: Sample, generator: torch.Generator) -> Tensor:
        """Compare rendered pixels, or single points, with the truth."""
        model = self.model
        pixels = self.config.optimizer.batch_size // batch.targets.masks[..., 0, 0].numel()
        if isinstance(model, PointRegression) and model.config.point_supervision == "points":
            points = pixels * model.config.points_per_ray
            losses = point_losses(model, batch, points, generator)
            loss = losses["fine"] + losses["opacity"]
            self.log("train/opacity_error", losses["opacity"])
            self.log("train/surface_share", losses["surface_share"])
        else:
            loss = self._ray_loss(batch, pixels, generator)
            losses = {"fine": loss}
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/PSNR", psnr_from_mse(losses["fine"].detach()), prog_bar=True)
        return loss

    def _ray_loss(self, batch: Sample, count: int, generator: torch.Generator) -> Float[Tensor, ""]:
        """Return the squared error of random pixels of every target (Chen et al. 2021, eq. 7)."""
        render, errors = self._encode(batch), []
        for place in range(batch.targets.images.shape[1]):
            target = batch.targets[:, place]
            pixels, places = draw_pixels(target, count, generator)
            rays = pixel_rays(target.cameras, pixels)
            rgb = render(rays, batch.near_far, generator).rgb
            errors.append(pixel_error(rgb, target, places))
        return torch.stack(errors).mean()

    def _encode(self, batch: Sample) -> Callable[..., Composite]:
        """Return what renders rays of the scenes of a batch."""
        # Each model takes what it has encoded itself.
        render: Callable[..., Composite] = self.model.render_rays
        return partial(render, self.model.encode(batch.sources, batch.near_far))

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """Return the model's parameters."""
        return [pair for pair in self.model.named_parameters() if pair[1].requires_grad]

    def header(self) -> tuple[str, dict[str, Any]]:
        """Return the model's name, all settings, and the backbone."""
        model = self.model
        fingerprint = model.backbone.fingerprint if isinstance(model, PointRegression) else ""
        name = self.config.run.model
        settings = asdict(self.config)
        return KIND, {"model": name, "settings": settings, "backbone_fingerprint": fingerprint}


def build_baseline(config: GeneralTrainingConfig) -> MVSNeRF | PointRegression:
    """Build the baseline that the settings name, with random weights."""
    if config.run.model == "mvsnerf":
        return MVSNeRF(config.baselines)
    return PointRegression(config.baselines, config.model.pyramid, load_backbone(config.backbone))
