"""General training, one model for many scenes: the module, its data, its trainer."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from datasets.data_module import SceneDataModule
from datasets.mixed_data import MixedDataModule
from datasets.procedural_data import ProceduralDataModule
from datasets.views import Sample
from evaluation.scores import find_perceptual_distance, mean_depth_error, psnr, psnr_from_mse
from models.checkpoint import Checkpoint, general_content, read_checkpoint
from models.depth_prior import SHRINK
from models.projection import SceneFeatures
from models.vggt.backbone import load_backbone
from models.vggt_nerf import RenderedImages, VGGTNeRF
from models.weights import fill_weights
from training.augmentation import draw_view_mask, perturb_cameras, vary_exposure
from training.best_checkpoint import BestCheckpoint
from training.callbacks import GradientGuard, ShortProgressBar, Throughput, ValidationPictures
from training.checkpointing import (
    AtomicCheckpointIO,
    LastCheckpoint,
    check_resumed_settings,
    describe_differences,
    folder_of_one_run,
    restored,
)
from training.config import GeneralTrainingConfig
from training.curves import curve_logger
from training.joint_backbone import compare_geometry, learned_parameters, learning_network
from training.loop_progress import canonical_loops
from training.optimization import AveragedWeights, build_optimizer
from training.windows import render_drawn_window, source_entropy, window_losses
from utils.config import differing_settings
from utils.devices import check_devices, checked_hardware, choose_precision, generator_for
from utils.errors import UserError
from utils.files import check_output_folder, resolve_checkpoint

logger = logging.getLogger(__name__)


def run_general_training(config: GeneralTrainingConfig) -> Path:
    """Train, and return the folder of the run's checkpoints."""
    check_devices(config.run.device, config.run.devices)
    folder = check_output_folder(Path(config.run.save_dir) / config.run.expname)
    with folder_of_one_run(folder):
        _train(config, folder)
    return folder / "ckpts"


def _train(config: GeneralTrainingConfig, folder: Path) -> None:
    run = config.run
    resume = _checked_resume(config) if run.ckpt else None
    with checked_hardware(run.device, run.devices, run.strategy):
        trainer = build_trainer(config, folder)
    seed = run.seed
    data = _build_data(config)
    data.setup("fit")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VGGTNeRF(config.model, load_backbone(config.backbone))
    if run.init_ckpt:
        _initialise(model, read_checkpoint(run.init_ckpt))
    count = sum(parameter.numel() for parameter in model.parameters())
    logger.info("%.2f M parameters are trained; pictures and curves in %s", count / 1e6, folder)
    with restored(resume, trainer):
        trainer.fit(GeneralModule(model, config), data, ckpt_path=resume, weights_only=True)


def _build_data(config: GeneralTrainingConfig) -> pl.LightningDataModule:
    share, seed = config.data.share_of_worlds, config.run.seed
    if share == 0:
        return SceneDataModule(config.data, seed)
    kind = ProceduralDataModule if share == 1 else MixedDataModule
    return kind(config.data, config.worlds, config.replay, seed)


def build_trainer(config: GeneralTrainingConfig, folder: Path) -> pl.Trainer:
    """Return Lightning's trainer with the project's callbacks and atomic checkpoints."""
    run = config.run
    return pl.Trainer(
        accelerator=run.device,
        devices=run.devices,
        num_nodes=run.num_nodes,
        strategy=run.strategy,
        precision=choose_precision(run.precision, run.device),
        max_epochs=run.num_epochs,
        num_sanity_val_steps=1,
        enable_model_summary=False,
        use_distributed_sampler=False,
        log_every_n_steps=10,
        logger=curve_logger(folder, config),
        callbacks=[
            GradientGuard(),
            ShortProgressBar(),
            BestCheckpoint(folder / "ckpts"),
            LastCheckpoint(folder / "ckpts", run.save_every),
            Throughput(config.optimizer.batch_size),
            ValidationPictures(folder / "pictures"),
        ],
        plugins=[AtomicCheckpointIO(folder)],
    )


def _initialise(model: VGGTNeRF, checkpoint: Checkpoint) -> None:
    path, theirs = checkpoint.path, checkpoint.backbone_fingerprint
    differing = differing_settings(asdict(model.config), asdict(checkpoint.model_config))
    structural = [row for row in differing if not row[0].startswith("rendering.")]
    if structural:
        raise UserError(f"{path}: is of another model: {describe_differences(structural)}")
    if theirs != model.backbone.fingerprint:
        logger.warning(
            "%s was trained on another backbone (fingerprint %s, here %s)",
            *(path, theirs, model.backbone.fingerprint),
        )
    if checkpoint.network_weights:
        raise UserError(
            f"{path}: was trained together with its backbone; write both first, with python -m "
            f"apps.export_checkpoint --ckpt {path} --out FOLDER, then start from FOLDER with "
            "--vggt_path FOLDER/backbone"
        )
    fill_weights(model, checkpoint.weights, path)


def _checked_resume(config: GeneralTrainingConfig) -> Path:
    """Find the checkpoint and compare its settings with ours before anything is built."""
    path = resolve_checkpoint(str(config.run.ckpt))
    content = general_content(path)
    if "optimizer_states" not in content:
        raise UserError(
            f"{path}: was exported without its optimiser and cannot be resumed; start a new run "
            "from its weights with --init_ckpt"
        )
    check_resumed_settings(
        *(path, config, content["vggt_nerf"]["settings"]),
        structural=("model.", "backbone."),
        ignored=("run.ckpt", "run.save_dir", "run.expname", "data.num_workers"),
        restart="--init_ckpt",
    )
    return path


class GeneralModule(pl.LightningModule):
    """Wire batches, model, losses and logging.

    All randomness of a step is drawn from (seed, step, rank): a resumed run draws the same. What is
    validated, and what a run leaves, are the averaged weights; training goes on from its own.
    """

    def __init__(self, model: VGGTNeRF, config: GeneralTrainingConfig) -> None:
        """Wire a run; its checkpoints carry all its settings."""
        super().__init__()
        self.model = model
        self.config = config
        self.network = learning_network(model) if config.loss.geometry_weight else None
        self.perceptual = find_perceptual_distance() if config.loss.lpips_weight else None
        self.average: AveragedWeights | None = None
        self._trained: dict[str, Any] | None = None
        """Of a resumed run, the trained weights."""
        self.scores = torch.zeros(3, 2)
        """Sum and count in this validation, on this rank: of the PSNR of each loader's views, and
        of the depth errors that are known."""

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Render a random window of every target and compare."""
        config, seed = self.config, self.config.run.seed
        generator = generator_for(self.device, seed, self.global_step, self.global_rank)
        batch = vary_exposure(batch, generator)
        if batch.cameras_are_exact:
            batch = perturb_cameras(batch, config.augmentation.camera_noise, generator)
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
        parameters = [*self.model.named_parameters(), *learned_parameters(self.network)]
        optimizer, schedule = build_optimizer(parameters, self.config.optimizer, steps)
        scheduler = {"scheduler": schedule, "interval": "step"}
        decay = self.config.optimizer.average_decay
        self.average = AveragedWeights([parameter for _, parameter in parameters], decay)
        if self._trained is not None:
            self.average.restore(self._trained)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Take a step and average the weights."""
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
        checkpoint["vggt_nerf"] = {
            "settings": asdict(self.config),
            "backbone_fingerprint": self.model.backbone.fingerprint,
        }
