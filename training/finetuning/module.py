"""Lightning modules for fine-tuning a scene of VGGT-NeRF or of MVSNeRF."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

import pytorch_lightning as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from datasets.views import Views
from evaluation.scores import find_perceptual_distance
from models.baselines.mvsnerf.scene_model import MVSNeRFScene
from models.scenes.scene_model import SceneModel, TunableScene
from training.config import FineTuningConfig
from training.losses import level_guidance, pixel_error, window_losses
from training.optimization import AveragedWeights, warmup_cosine
from training.ray_batches import draw_pixels, render_random_window
from utils.cameras import pixel_rays
from utils.devices import generator_for
from utils.memory import memory_stage

_LRATE_END = 0.03
"""Learning rates at the end of the run, as a share of their peaks."""
_BETAS = (0.9, 0.99)
_EPS = 1e-15
"""Smaller than Adam's default, as the gradients of feature maps are tiny."""

SceneT = TypeVar("SceneT", bound=TunableScene)


class TuningModule(pl.LightningModule, Generic[SceneT]):
    """Optimiser, schedule, averaging and checkpoints, common to all kinds of scenes.

    The randomness of a step depends on (seed, step) only, so that a resumed run is exact.
    Checkpoints hold the averaged weights; training continues from its own.
    """

    def __init__(
        self,
        scene: SceneT,
        masks: Bool[Tensor, "view height width"],
        config: FineTuningConfig,
        networks: list[nn.Parameter],
        maps: list[nn.Parameter],
    ) -> None:
        """Train ``networks`` and ``maps`` of the scene on the masked pixels of its views."""
        super().__init__()
        self.scene, self.masks, self.config = scene, masks, config
        scene.requires_grad_(False)
        for parameter in (*networks, *maps):
            parameter.requires_grad_(True)
        optimizer = config.optimizer
        self.groups: list[dict[str, Any]] = [
            {"params": networks, "lr": optimizer.lrate},
            {"params": maps, "lr": optimizer.lrate_maps},
        ]
        self.average = AveragedWeights([*networks, *maps], optimizer.average_decay)

    def generator(self) -> torch.Generator:
        """Return the random generator of this step."""
        return generator_for(self.device, self.config.run.seed, self.global_step)

    def draw_targets(
        self, generator: torch.Generator
    ) -> tuple[Int[Tensor, " target"], Views, Float[Tensor, "target 2"]]:
        """Draw training views without synchronising the device.

        Returns their indices, the views, and near and far of each.
        """
        scene, views = self.scene, len(self.masks)
        count = min(self.config.optimizer.targets_per_step, views)
        order = torch.rand(views, generator=generator, device=self.device).argsort()[:count]
        images = scene.images.index_select(0, order)
        targets = Views(
            images=images,
            cameras=scene.cameras[order],
            depths=torch.zeros_like(images[:, 0]),
            masks=self.masks.index_select(0, order),
        )
        return order, targets, scene.near_far.expand(count, 2)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return Adam and its schedule, which advances in every step."""
        optimizer = torch.optim.Adam(self.groups, betas=_BETAS, eps=_EPS, fused=True)
        total = self.config.optimizer.num_steps
        steps = min(self.config.optimizer.warmup_steps, total // 4), total
        schedule = warmup_cosine(optimizer, *steps, _LRATE_END)
        scheduler = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Update the weights and their average."""
        with self.step_memory():
            super().optimizer_step(*args, **kwargs)
        self.average.update()

    def step_memory(self) -> AbstractContextManager[None]:
        """Return a context that turns out-of-memory errors of a step into advice."""
        pixels = self.config.optimizer.batch_size
        return memory_stage("a step of fine-tuning", self.scene.images.device, batch_size=pixels)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the averaged scene, and the state of the average with the trained weights."""
        with self.average.in_place():
            checkpoint["state_dict"] = self.scene.scene_state()
        checkpoint["average"] = self.average.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the trained weights; the scene was built from the averaged ones."""
        self.strict_loading = False
        self.average.restore(checkpoint["average"])


class FineTuningModule(TuningModule[SceneModel]):
    """Trains networks and feature maps of VGGT-NeRF on random windows."""

    def __init__(
        self, scene: SceneModel, masks: Bool[Tensor, "view height width"], config: FineTuningConfig
    ) -> None:
        model = scene.model
        networks = (model.radiance_field, model.volume, model.fine_volume, model.decoder)
        weights = [p for network in networks for p in network.parameters()]
        super().__init__(scene, masks, config, weights, [scene.fine, scene.coarse])
        self.perceptual = find_perceptual_distance() if config.loss.lpips_weight else None
        optimizer, views = config.optimizer, config.data.n_views
        self.sources_per_step = min(optimizer.step_sources or views, views)
        self.sources = scene.sources_of_training_views(
            self.sources_per_step + optimizer.spare_sources
        )
        """Candidate source views of each training view."""

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Refine the depth prior of the training views every ``refine_every`` steps."""
        period = self.config.optimizer.refine_every
        if self.global_step and period and self.global_step % period == 0:
            # In a context of its own: some versions of torch would reuse in the step the weights
            # that autocast has cast without gradients here.
            precision = self.trainer.precision_plugin
            with self.average.in_place(), precision.forward_context():
                self.scene.refine_depth_prior()

    def training_step(self, batch: object, batch_idx: int) -> dict[str, Tensor]:
        """Return the losses of random windows, without synchronising the device."""
        scene, config, generator = self.scene, self.config, self.generator()
        order, targets, near_far = self.draw_targets(generator)
        candidates = self.sources.index_select(0, order)
        features = scene.gather(draw_sources(candidates, self.sources_per_step, generator))
        pixels = config.optimizer.batch_size // len(order)
        rendering, truth = render_random_window(
            scene.model, features, targets, near_far, pixels, generator
        )
        background = scene.model.config.rendering.background
        losses = window_losses(
            features, rendering, truth, near_far, config.loss, self.perceptual, background
        )
        guidance = level_guidance(rendering, truth.bundle_valid)
        loss = losses["total"] + config.optimizer.guide_weight * guidance
        return {"loss": loss, "squared_error": losses["fine"].detach()}


class MVSNeRFTuningModule(TuningModule[MVSNeRFScene]):
    """Trains the encoding volume and the MLP of MVSNeRF on random rays."""

    def __init__(
        self,
        scene: MVSNeRFScene,
        masks: Bool[Tensor, "view height width"],
        config: FineTuningConfig,
    ) -> None:
        super().__init__(scene, masks, config, [*scene.model.nerf.parameters()], [scene.volume])

    def training_step(self, batch: object, batch_idx: int) -> dict[str, Tensor]:
        """Return the squared error of random pixels."""
        scene, generator = self.scene, self.generator()
        order, targets, near_far = self.draw_targets(generator)
        count = self.config.optimizer.batch_size // len(order)
        pixels, indices = draw_pixels(targets, count, generator)
        rays = pixel_rays(targets.cameras, pixels)
        encoded = scene.gather(scene.sources_of(targets.cameras, scene.size))
        rgb = scene.model.render_rays(encoded, rays, near_far, generator).rgb
        error = pixel_error(rgb, targets, indices)
        return {"loss": error, "squared_error": error.detach()}


def draw_sources(
    candidates: Int[Tensor, "target candidate"], count: int, generator: torch.Generator
) -> Int[Tensor, "target source"]:
    """Draw ``count`` of each target's candidates, for robustness to the choice of sources."""
    if candidates.shape[1] <= count:
        return candidates
    ranks = torch.rand(candidates.shape, generator=generator, device=candidates.device)
    return candidates.gather(1, ranks.argsort(1)[:, :count])
