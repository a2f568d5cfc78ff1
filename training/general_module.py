"""Lightning modules of general training: the part common to all models, and VGGT-NeRF's."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict
from typing import Any, Generic, TypeVar

import pytorch_lightning as pl
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from datasets.views import Sample, Views
from evaluation.scores import find_perceptual_distance, mean_depth_error, psnr, psnr_from_mse
from models.depth_prior import SHRINK
from models.encoder import fill_missing_views
from models.novel_view import NovelViewModel, RenderedImages
from models.projection import SceneFeatures
from models.vggt.backbone import BackboneFeatures, FrozenVGGT
from models.vggt.network import ALL_HEADS, VGGT
from models.vggt_nerf import VGGTNeRF
from training.augmentation import draw_view_mask, perturb_cameras, vary_exposure
from training.config import GeneralTrainingConfig
from training.losses import source_entropy, window_losses
from training.optimization import AveragedWeights, build_optimizer
from training.ray_batches import render_random_window
from training.resuming import canonical_loops
from training.vggt.losses import geometry_losses, geometry_targets
from utils.cameras import full_precision
from utils.devices import generator_for
from utils.errors import UserError
from utils.memory import Amount, MultipleOf, memory_stage

ModelT = TypeVar("ModelT", bound=NovelViewModel)


class NovelViewModule(pl.LightningModule, Generic[ModelT]):
    """Augmentation, validation, optimiser, averaging and checkpoints, common to all models.

    The randomness of a step depends on (seed, step, rank) only, so that a resumed run is exact.
    Validation and the state dict use the averaged weights; training continues from its own.
    """

    def __init__(self, model: ModelT, config: GeneralTrainingConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.average: AveragedWeights | None = None
        self._resumed_average: dict[str, Any] | None = None
        self.scores = torch.zeros(3, 2)
        """Sum and count on this rank: of the PSNR for each data loader, and of depth errors."""

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Augment a sample and return its loss."""
        seed = self.config.run.seed
        generator = generator_for(self.device, seed, self.global_step, self.global_rank)
        batch = vary_exposure(batch, generator)
        if batch.cameras_are_exact:
            batch = perturb_cameras(batch, self.config.augmentation.camera_noise, generator)
        return self.compute_loss(batch, generator)

    @abstractmethod
    def compute_loss(self, batch: Sample, generator: torch.Generator) -> Tensor:
        """Return the loss of a sample, and log its terms."""

    @abstractmethod
    def trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return names and parameters for ``build_optimizer``."""

    @abstractmethod
    def header(self) -> tuple[str, dict[str, Any]]:
        """Return key and content of the checkpoint's entry about model and settings."""

    def on_validation_epoch_start(self) -> None:
        """Reset the scores."""
        self.scores = torch.zeros(3, 2, device=self.device)

    def validation_step(
        self, batch: Sample, batch_idx: int, dataloader_idx: int = 0
    ) -> RenderedImages:
        """Render the first target of each scene with the averaged weights."""
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
        """Log means over all ranks: PSNR, PSNR of each of several data loaders, depth error."""
        # Ranks without views take part, too: the others wait for them.
        scores = self.trainer.strategy.reduce(self.scores, reduce_op="sum").double().cpu()
        means = {"val/PSNR": scores[:2].sum(0), "val/depth_error": scores[2]}
        if scores[:2, 1].all():
            means |= {"val/PSNR_worlds": scores[0], "val/PSNR_scenes": scores[1]}
        for name, (total, count) in means.items():
            if count:
                # On the device: NCCL, over which Lightning averages, reduces nothing on a CPU.
                mean = (total / count).to(self.device, torch.float32)
                self.log(name, mean, prog_bar=name == "val/PSNR", sync_dist=True)

    def configure_optimizers(self) -> dict[str, Any]:
        """Return AdamW and its schedule, which advances in every step."""
        # Not `estimated_stepping_batches`: with it Lightning sets up the data before it restores
        # the data loader's position, which is lost then.
        steps = self._batches_per_epoch() * int(self.trainer.max_epochs or 1)
        parameters, config = self.trained_parameters(), self.config.optimizer
        optimizer, schedule = build_optimizer(parameters, config, steps)
        values = [parameter for _, parameter in parameters]
        self.average = AveragedWeights(values, config.average_decay)
        if self._resumed_average is not None:
            self.average.restore(self._resumed_average)
        scheduler = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Update the weights and their average."""
        data = self.config.data
        windows = data.scenes_per_batch * data.num_targets
        batch_size = MultipleOf(self.config.optimizer.batch_size, windows)
        settings: dict[str, Amount] = {"batch_size": batch_size}
        if self.config.run.model != "mvsnerf":
            settings["min_sources_and_max_sources"] = data.max_sources
        with memory_stage("a step of training", self.device, **settings):
            super().optimizer_step(*args, **kwargs)
        assert self.average is not None
        self.average.update()

    def _batches_per_epoch(self) -> int:
        return self.trainer.datamodule.batches_per_epoch  # pyright: ignore[reportAttributeAccessIssue]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set the loops' progress from the step, and keep the state of the average."""
        step, batches = checkpoint["global_step"], self._batches_per_epoch()
        checkpoint["loops"] = canonical_loops(checkpoint["loops"], step, batches)
        epochs = self.config.run.num_epochs
        if step > epochs * batches:
            raise UserError(
                f"--num_epochs {epochs}: the resumed run has completed {-(-step // batches)} "
                f"epochs of {batches} steps. Ask for at least as many, or use its checkpoint as "
                "it is."
            )
        # Missing in files of early versions.
        self._resumed_average = checkpoint.get("average")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the averaged weights as state dict, the trained ones beside them, and the header."""
        assert self.average is not None
        with self.average.in_place():
            checkpoint["state_dict"] = self.state_dict()
        checkpoint["average"] = self.average.state()
        key, content = self.header()
        checkpoint[key] = content


class GeneralModule(NovelViewModule[VGGTNeRF]):
    """Training step of VGGT-NeRF; optionally trains the backbone with its own losses, too."""

    def __init__(self, model: VGGTNeRF, config: GeneralTrainingConfig) -> None:
        super().__init__(model, config)
        # Graphs of validation would keep GPU memory from training.
        model.graphs.enabled = False
        self.network: VGGT | None = None
        if config.loss.geometry_weight:
            assert isinstance(model.backbone, FrozenVGGT)
            self.network = model.backbone.unfreeze()
        self.perceptual = find_perceptual_distance() if config.loss.lpips_weight else None

    def compute_loss(self, batch: Sample, generator: torch.Generator) -> Tensor:
        """Compare a random window of every target with its rendering."""
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
        """Return the encoded scenes, and the loss terms as means over the targets."""
        config, near_far = self.config.loss, batch.near_far
        view_mask = draw_view_mask(
            batch.sources, self.config.augmentation.source_dropout, generator
        )
        predicted, geometry = None, torch.zeros((), device=self.device)
        if self.network is not None:
            predicted, geometry = self._geometry_loss(batch.sources, view_mask)
        scene = self.model.encode(batch.sources, near_far, view_mask, False, predicted)
        pixels = self.config.optimizer.batch_size // batch.targets.cameras.shape.numel()
        source_planes = torch.zeros((), device=self.device)
        if config.source_planes_weight:
            source = batch.sources[:, self.global_step % batch.sources.cameras.shape[1]]
            source_planes = source_entropy(
                self.model, scene, source, near_far, SHRINK**2 * pixels // 4, generator
            )
        scene = self.model.refine(scene, near_far)
        background, terms = self.model.config.rendering.background, []
        for index in range(batch.targets.cameras.shape[1]):
            views = batch.targets[:, index]
            window = render_random_window(self.model, scene, views, near_far, pixels, generator)
            terms.append(
                window_losses(scene, *window, near_far, config, self.perceptual, background)
            )
        means = {name: torch.stack([term[name] for term in terms]).mean() for name in terms[0]}
        total = means["total"] + config.source_planes_weight * source_planes
        total = total + config.geometry_weight * geometry
        extra = {"source_planes": source_planes, "geometry": geometry.detach(), "total": total}
        return scene, {**means, **extra}

    def _geometry_loss(
        self, sources: Views, view_mask: Bool[Tensor, "batch view"] | None
    ) -> tuple[BackboneFeatures, Float[Tensor, ""]]:
        """Return the backbone's features of the sources and the loss of its predicted geometry."""
        views = sources if view_mask is None else fill_missing_views(sources, view_mask)
        features = self.model.backbone(views.images, heads=ALL_HEADS)
        assert features.prediction is not None
        with full_precision(views.images):
            targets = geometry_targets(views.resized(features.network_size))
            return features, geometry_losses(features.prediction, targets)["loss"]

    def trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return the parameters of the model and, if it is trained, of the backbone."""
        network = self.network.named_parameters(prefix="backbone") if self.network else ()
        return [*self.model.named_parameters(), *network]

    def header(self) -> tuple[str, dict[str, Any]]:
        """Return the settings and the backbone's fingerprint."""
        fingerprint = self.model.backbone.fingerprint
        return "vggt_nerf", {"settings": asdict(self.config), "backbone_fingerprint": fingerprint}
