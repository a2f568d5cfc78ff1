"""One step of general training, one validation: for every model, and for VGGT-NeRF."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict
from typing import Any, Generic, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from datasets.views import Sample
from evaluation.scores import find_perceptual_distance, mean_depth_error, psnr, psnr_from_mse
from models.depth_prior import SHRINK
from models.novel_view import NovelViewModel, RenderedImages
from models.projection import SceneFeatures
from models.vggt_nerf import VGGTNeRF
from training.augmentation import draw_view_mask, perturb_cameras, vary_exposure
from training.config import GeneralTrainingConfig
from training.joint_backbone import compare_geometry, learned_parameters, learning_network
from training.loop_progress import canonical_loops
from training.optimization import AveragedWeights, build_optimizer
from training.windows import render_drawn_window, source_entropy, window_losses
from utils.devices import generator_for
from utils.errors import UserError
from utils.memory import Amount, MultipleOf, memory_stage

ModelT = TypeVar("ModelT", bound=NovelViewModel)


class NovelViewModule(pl.LightningModule, Generic[ModelT]):
    """What the training of any model has in common: samples, validation, optimiser, schedule.

    All randomness of a step is drawn from (seed, step, rank): a resumed run draws the same. What is
    validated, and what a run leaves, are the averaged weights; training goes on from its own.
    """

    def __init__(self, model: ModelT, config: GeneralTrainingConfig) -> None:
        """Wire a run; its checkpoints carry all its settings."""
        super().__init__()
        self.model = model
        self.config = config
        self.average: AveragedWeights | None = None
        self._trained: dict[str, Any] | None = None
        """Of a resumed run, the trained weights."""
        self.scores = torch.zeros(3, 2)
        """Sum and count in this validation, on this rank: of the PSNR of each loader's views, and
        of the depth errors that are known."""

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Vary a sample, and learn from it."""
        seed = self.config.run.seed
        generator = generator_for(self.device, seed, self.global_step, self.global_rank)
        batch = vary_exposure(batch, generator)
        if batch.cameras_are_exact:
            batch = perturb_cameras(batch, self.config.augmentation.camera_noise, generator)
        return self.learn(batch, generator)

    @abstractmethod
    def learn(self, batch: Sample, generator: torch.Generator) -> Tensor:
        """Return the loss of a sample, and log its terms."""

    @abstractmethod
    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """Return what is optimised, as ``build_optimizer`` names it."""

    @abstractmethod
    def header(self) -> tuple[str, dict[str, Any]]:
        """Return key and content of what a checkpoint holds beside the weights."""

    def on_validation_epoch_start(self) -> None:
        """Forget the scores of the last validation."""
        self.scores = torch.zeros(3, 2, device=self.device)

    def validation_step(
        self, batch: Sample, batch_idx: int, dataloader_idx: int = 0
    ) -> RenderedImages:
        """Render the first target of each scene whole."""
        assert self.average is not None
        target = batch.targets
        with self.average.in_place():
            scene = self.model.encode(batch.sources, batch.near_far)
            images = self.model.render_images(
                *(scene, target.cameras[:, 0], batch.near_far),
                *(target.size, self.config.run.val_chunk),
            )
        quality = psnr(images.rgb, target.images[:, 0], target.masks[:, 0])
        errors = mean_depth_error(images.depth, target.depths[:, 0])
        for row, values in ((dataloader_idx, quality), (2, errors)):
            self.scores[row] += torch.stack([values.nansum(), (~values.isnan()).sum()])
        return images

    def on_validation_epoch_end(self) -> None:
        """Log means over the views of all ranks: of PSNR, also by loader, and of the depth error.

        Every rank takes part, whether it has some or not: the others would wait for it.
        """
        scores = self.trainer.strategy.reduce(self.scores, reduce_op="sum").double().cpu()
        means = {"val/PSNR": scores[:2].sum(0), "val/depth_error": scores[2]}
        if scores[:2, 1].all():
            means |= {"val/PSNR_worlds": scores[0], "val/PSNR_scenes": scores[1]}
        for name, (total, count) in means.items():
            if count:
                self.log(name, total / count, prog_bar=name == "val/PSNR", sync_dist=True)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW on what is trainable, scheduled per step."""
        # Not `estimated_stepping_batches`: it makes Lightning set up the data before it has
        # restored the loader's place, and that place would then be forgotten.
        steps = self._batches_per_epoch() * int(self.trainer.max_epochs or 1)
        parameters, config = self.trained(), self.config.optimizer
        optimizer, schedule = build_optimizer(parameters, config, steps)
        values = [parameter for _, parameter in parameters]
        self.average = AveragedWeights(values, config.average_decay)
        if self._trained is not None:
            self.average.restore(self._trained)
        scheduler = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Take a step and average the weights."""
        data = self.config.data
        parts = data.scenes_per_batch * data.num_targets
        batch_size = MultipleOf(self.config.optimizer.batch_size, parts)
        lowered: dict[str, Amount] = {"batch_size": batch_size}
        if self.config.run.model != "mvsnerf":
            lowered["min_sources_and_max_sources"] = data.max_sources
        with memory_stage("a step of training", self.device, **lowered):
            super().optimizer_step(*args, **kwargs)
        assert self.average is not None
        self.average.update()

    def _batches_per_epoch(self) -> int:
        return self.trainer.datamodule.batches_per_epoch  # pyright: ignore[reportAttributeAccessIssue]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the run go on where its steps and validations say that it was."""
        step, batches = checkpoint["global_step"], self._batches_per_epoch()
        checkpoint["loops"] = canonical_loops(checkpoint["loops"], step, batches)
        epochs = self.config.run.num_epochs
        if step > epochs * batches:
            raise UserError(
                f"--num_epochs {epochs}: the run that is resumed has {-(-step // batches)} epochs "
                f"of {batches} steps behind it. Ask for at least so many; what it has learnt can "
                "be used as it is."
            )
        # Files of the version before have no average; it begins with their weights.
        self._trained = checkpoint.get("average")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the averaged weights, the trained ones beside them, and what rendering needs."""
        assert self.average is not None
        with self.average.in_place():
            checkpoint["state_dict"] = self.state_dict()
        checkpoint["average"] = self.average.state()
        key, content = self.header()
        checkpoint[key] = content


class GeneralModule(NovelViewModule[VGGTNeRF]):
    """Wire batches, VGGT-NeRF, losses and logging."""

    def __init__(self, model: VGGTNeRF, config: GeneralTrainingConfig) -> None:
        """Wire a run."""
        super().__init__(model, config)
        self.network = learning_network(model) if config.loss.geometry_weight else None
        self.perceptual = find_perceptual_distance() if config.loss.lpips_weight else None

    def learn(self, batch: Sample, generator: torch.Generator) -> Tensor:
        """Render a random window of every target and compare."""
        scene, losses = self._losses(batch, generator)
        self.log("train/loss", losses["total"], prog_bar=True)
        self.log("train/PSNR", psnr_from_mse(losses["fine"].detach()), prog_bar=True)
        self.log("train/coarse_PSNR", psnr_from_mse(losses["coarse"].detach()))
        names = {"depth": "depth_error", "planes": "plane_entropy", "ssim": "dissimilarity"}
        self.log_dict({f"train/{name}": losses[term] for term, name in names.items()})
        self.log("train/composited_PSNR", psnr_from_mse(losses["composited"].detach()))
        self.log("train/source_entropy", losses["source_planes"])
        self.log("train/geometry", losses["geometry"])
        self.log("train/prior_confidence", scene.prior.depth_and_confidence()[:, :, 1].mean())
        return losses["total"]

    def _losses(
        self, batch: Sample, generator: torch.Generator
    ) -> tuple[SceneFeatures, dict[str, Tensor]]:
        """Return means over the targets of a scene."""
        config, near_far, parts = self.config.loss, batch.near_far, []
        view_mask = draw_view_mask(
            batch.sources, self.config.augmentation.source_dropout, generator
        )
        predicted, geometry = None, torch.zeros((), device=self.device)
        if self.network is not None:
            predicted, geometry = compare_geometry(self.model, batch.sources, view_mask)
        scene = self.model.encode(batch.sources, near_far, view_mask, False, predicted)
        # A target's share of the pixels of a step.
        pixels = self.config.optimizer.batch_size // batch.targets.masks[..., 0, 0].numel()
        of_sources = torch.zeros((), device=self.device)
        if config.source_planes_weight:
            source = batch.sources[:, self.global_step % batch.sources.images.shape[1]]
            of_sources = source_entropy(
                self.model, scene, source, near_far, SHRINK**2 * pixels // 4, generator
            )
        scene = self.model.refine(scene, near_far)
        for place in range(batch.targets.images.shape[1]):
            views = batch.targets[:, place]
            drawn = render_drawn_window(self.model, scene, views, near_far, pixels, generator)
            background = self.model.config.rendering.background
            parts.append(
                window_losses(scene, *drawn, near_far, config, self.perceptual, background)
            )
        means = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
        total = means["total"] + config.source_planes_weight * of_sources
        total = total + config.geometry_weight * geometry
        extra = {"source_planes": of_sources, "geometry": geometry.detach(), "total": total}
        return scene, {**means, **extra}

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """Return the model's parameters, and the backbone's where it learns."""
        return [*self.model.named_parameters(), *learned_parameters(self.network)]

    def header(self) -> tuple[str, dict[str, Any]]:
        """Return settings and backbone."""
        fingerprint = self.model.backbone.fingerprint
        return "vggt_nerf", {"settings": asdict(self.config), "backbone_fingerprint": fingerprint}
