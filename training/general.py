"""A general training run: its data, its model, its trainer."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from datasets.data_module import SceneDataModule
from datasets.procedural_data import ProceduralDataModule
from models.checkpoint import general_content, model_weights
from models.config import ModelConfig
from models.vggt.backbone import load_backbone
from models.vggt_nerf import VGGTNeRF
from training.callbacks import GradientGuard, Throughput, ValidationPictures
from training.checkpointing import (
    AtomicCheckpointIO,
    LastCheckpoint,
    best_checkpoint,
    check_resumed_settings,
    describe_differences,
)
from training.config import GeneralTrainingConfig
from training.general_module import GeneralModule
from utils.checkpoints import resolve_checkpoint
from utils.config import differing_settings, settings_from_plain
from utils.devices import choose_precision
from utils.errors import UserError
from utils.files import check_output_folder

logger = logging.getLogger(__name__)


def run_general_training(config: GeneralTrainingConfig) -> Path:
    """Train, and return the folder of the run's checkpoints."""
    folder = check_output_folder(Path(config.run.save_dir) / config.run.expname)
    resume = _checked_resume(config) if config.run.ckpt else None
    data = _build_data(config)
    module = _build_module(config)
    trainer = build_trainer(config, folder)
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return folder / "ckpts"


def _build_data(config: GeneralTrainingConfig) -> SceneDataModule | ProceduralDataModule:
    if config.data.dataset_name == "procedural":
        return ProceduralDataModule(config.data, config.worlds, config.replay, config.run.seed)
    data = SceneDataModule(config.data, config.run.seed)
    data.setup("fit")
    return data


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
        use_distributed_sampler=False,
        log_every_n_steps=10,
        logger=TensorBoardLogger(folder, name="", version="logs"),
        callbacks=[
            GradientGuard(),
            best_checkpoint(folder / "ckpts"),
            LastCheckpoint(folder / "ckpts", run.save_every),
            Throughput(config.optimizer.batch_size),
            ValidationPictures(folder / "pictures"),
        ],
        plugins=[AtomicCheckpointIO()],
    )


def _build_module(config: GeneralTrainingConfig) -> GeneralModule:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        model = VGGTNeRF(config.model, load_backbone(config.backbone))
    if config.run.init_ckpt:
        _initialise(model, resolve_checkpoint(config.run.init_ckpt))
    return GeneralModule(model, config)


def _initialise(model: VGGTNeRF, path: Path) -> None:
    content = general_content(path)
    settings = content["vggt_nerf"]["settings"]["model"]
    saved = settings_from_plain(ModelConfig, settings, f"{path}: model")
    differing = differing_settings(asdict(model.config), asdict(saved))
    structural = [row for row in differing if not row[0].startswith("rendering.")]
    if structural:
        raise UserError(f"{path}: is of another model: {describe_differences(structural)}")
    theirs = content["vggt_nerf"]["backbone_fingerprint"]
    if theirs != model.backbone.fingerprint:
        logger.warning(
            "%s was trained on another backbone (fingerprint %s, here %s); training has to get "
            "used to this one",
            path,
            theirs,
            model.backbone.fingerprint,
        )
    try:
        model.load_state_dict(model_weights(content))
    except RuntimeError as error:
        raise UserError(f"{path}: is of another model, its weights do not fit: {error}") from error


def _checked_resume(config: GeneralTrainingConfig) -> Path:
    """Find the checkpoint and compare its settings with ours before anything is built."""
    path = resolve_checkpoint(str(config.run.ckpt))
    content = general_content(path)
    if "optimizer_states" not in content:
        raise UserError(
            f"{path}: was exported without its optimiser and cannot be resumed; start a new run "
            "from its weights with --init_ckpt"
        )
    theirs: dict[str, Any] = content["vggt_nerf"]["settings"]
    check_resumed_settings(
        path,
        asdict(config),
        asdict(settings_from_plain(GeneralTrainingConfig, theirs, f"{path}: settings")),
        structural=("model.", "backbone."),
        ignored=("run.ckpt", "run.save_dir", "run.expname", "data.num_workers"),
        restart="--init_ckpt",
    )
    return path
