"""General training of one model on many scenes."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import pytorch_lightning as pl
import torch

from datasets.data_module import SceneDataModule
from datasets.procedural.data_module import ProceduralDataModule
from datasets.procedural.mixed_data import MixedDataModule
from models.checkpoints.general import (
    Checkpoint,
    read_checkpoint,
    read_model_file,
    saved_settings,
)
from models.checkpoints.weights import fill_weights
from models.vggt.backbone import load_backbone
from models.vggt_nerf import VGGTNeRF
from training.baseline_module import BaselineModule, build_baseline
from training.callbacks import (
    GradientGuard,
    ShortProgressBar,
    Throughput,
    ValidationPictures,
    tensorboard_logger,
)
from training.checkpointing import (
    AtomicCheckpointIO,
    BestCheckpoint,
    LastCheckpoint,
    exclusive_run_folder,
)
from training.config import GeneralTrainingConfig
from training.general_module import GeneralModule, NovelViewModule
from training.rank_failure import end_on_lost_rank
from training.resuming import check_resumed_settings, checked_restore, describe_differences
from utils.checkpoints import load_safely, resolve_checkpoint
from utils.config import differing_settings
from utils.devices import check_devices, checked_hardware, choose_precision
from utils.errors import UserError

logger = logging.getLogger(__name__)


def run_general_training(config: GeneralTrainingConfig) -> Path:
    """Train and return the folder of the checkpoints."""
    run = config.run
    check_devices(run.device, run.devices)
    folder = Path(run.save_dir) / run.expname
    with exclusive_run_folder(folder):
        resume = checked_resume(config) if run.ckpt else None
        with checked_hardware(run.device, run.devices, run.strategy):
            trainer = build_trainer(config, folder)
        data = _build_data(config)
        data.setup("fit")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            module = _build_module(config)
        count = sum(parameter.numel() for _, parameter in module.trained_parameters())
        logger.info("%.2f M parameters are trained; pictures and curves in %s", count / 1e6, folder)
        with checked_restore(resume, trainer), end_on_lost_rank(trainer):
            trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return folder / "ckpts"


def _build_module(config: GeneralTrainingConfig) -> NovelViewModule:
    """Return the module of the configured model, with its initial weights."""
    init_ckpt = config.run.init_ckpt
    if config.run.model == "vggt_nerf":
        model = VGGTNeRF(config.model, load_backbone(config.backbone))
        if init_ckpt:
            _initialise(model, read_checkpoint(init_ckpt))
        return GeneralModule(model, config)
    model = build_baseline(config)
    if init_ckpt:
        checkpoint = read_model_file(init_ckpt)
        fill_weights(model, checkpoint.weights, checkpoint.path)
    return BaselineModule(model, config)


def _build_data(config: GeneralTrainingConfig) -> pl.LightningDataModule:
    share, seed = config.data.share_of_worlds, config.run.seed
    if share == 0:
        return SceneDataModule(config.data, seed)
    kind = ProceduralDataModule if share == 1 else MixedDataModule
    return kind(config.data, config.worlds, config.replay, seed)


def build_trainer(config: GeneralTrainingConfig, folder: Path) -> pl.Trainer:
    """Return Lightning's trainer with callbacks and atomic checkpoints."""
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
        logger=tensorboard_logger(folder, config),
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
    path, fingerprint = checkpoint.path, checkpoint.backbone_fingerprint
    differing = differing_settings(asdict(model.config), asdict(checkpoint.model_config))
    structural = [row for row in differing if not row[0].startswith("rendering.")]
    if structural:
        raise UserError(f"{path}: is of another model: {describe_differences(structural)}")
    if fingerprint != model.backbone.fingerprint:
        logger.warning(
            "%s was trained on another backbone (fingerprint %s, here %s)",
            *(path, fingerprint, model.backbone.fingerprint),
        )
    if checkpoint.network_weights:
        raise UserError(
            f"{path}: was trained together with its backbone; export both first with python -m "
            f"apps.export_checkpoint --ckpt {path} --out FOLDER, then start from FOLDER with "
            "--vggt_path FOLDER/backbone"
        )
    fill_weights(model, checkpoint.weights, path)


def checked_resume(config: GeneralTrainingConfig) -> Path:
    """Find the checkpoint and compare its settings before anything is built."""
    path = resolve_checkpoint(str(config.run.ckpt))
    content = load_safely(path)
    settings = saved_settings(content, path)
    if "optimizer_states" not in content:
        raise UserError(
            f"{path}: was exported without its optimiser and cannot be resumed; start a new run "
            "from its weights with --init_ckpt"
        )
    check_resumed_settings(
        *(path, config, settings),
        structural=("model.", "backbone.", "baselines.", "run.model"),
        ignored=("run.ckpt", "run.save_dir", "run.expname", "data.num_workers"),
        restart="--init_ckpt",
    )
    return path
