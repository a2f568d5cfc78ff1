"""A training run of the small backbone: its folder, its trainer, its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from datasets.replay import (
    PlannedData,
    PreparedBatches,
    PreparedScenes,
    SceneRequest,
    StepSampler,
    scene_loader,
)
from models.training.checkpointing import AtomicCheckpointIO, LastCheckpoint
from models.training.resuming import check_resumed_settings
from models.vggt.initialization import random_vggt
from models.vggt.network import VGGT
from models.vggt_training.curriculum import plan_step
from models.vggt_training.export import export_vggt
from models.vggt_training.held_out import comparison_table
from models.vggt_training.mini_config import MiniTrainingConfig
from models.vggt_training.mini_module import VGGTMiniModule
from models.vggt_training.scenes import SceneSource, procedural_source
from utils.checkpoints import check_writable, load_safely, resolve_checkpoint
from utils.config import differing_settings
from utils.errors import UserError

logger = logging.getLogger(__name__)

LOG_EVERY = 20
# Settings that decide what the saved state means.
STRUCTURAL = (
    "network.",
    "matching.matching_dim",
    "matching.matching_layers",
    "matching.shift_layers",
)


def run_mini_training(config: MiniTrainingConfig, source: SceneSource | None = None) -> Path:
    """Train, and return the folder of the averaged weights.

    Args:
        config: All settings.
        source: Where scenes come from; the procedural generator if ``None``.

    Raises:
        UserError: Bad input, before any long work.
        TrainingInterrupted: The run was told to stop and has saved.
    """
    run = config.run
    folder = check_writable(Path(run.save_dir) / run.expname)
    resume = _checked_resume(config) if run.ckpt else None
    network = _initial_network(config)
    source = source or procedural_source(config.scenes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.training_seed)
        module = VGGTMiniModule(network, source.make_renderer, config)
    trainer = _build_trainer(config, folder)
    data = MiniData(config, source.prepare)
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return folder / "export"


def evaluate_folder(config: MiniTrainingConfig) -> str:
    """Return a table of the held-out metrics of exported weights beside trivial ones."""
    network = VGGT.from_pretrained(str(config.run.evaluate))
    use_gpu = config.run.accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if use_gpu else "cpu")
    sample = partial(procedural_source(config.scenes).sample, device=device)
    return "\n".join(comparison_table(network.to(device), sample, config.held_out))


class MiniData(PlannedData):
    """Plans of training and held-out scenes for this process."""

    def __init__(self, config: MiniTrainingConfig, prepare: Callable[[SceneRequest], Any]) -> None:
        """Make an epoch the time between two validations."""
        super().__init__()
        self._config = config
        self._prepare = prepare

    def train_dataloader(self) -> DataLoader:
        """Return the run's next steps."""
        assert self.trainer is not None
        trainer, run = self.trainer, self._config.run
        request = partial(_training_request, self._config, trainer.global_rank, trainer.world_size)
        module = trainer.lightning_module
        assert isinstance(module, VGGTMiniModule)
        steps = StepSampler(
            lambda: trainer.global_step,
            run.val_every,
            self._config.replay.missing_batches,
            lambda: module.rendered.numbers,
        )
        return scene_loader(PreparedBatches(request, self._prepare), steps, run.num_workers)

    def val_dataloader(self) -> DataLoader:
        """Return this rank's share of the held-out scenes."""
        assert self.trainer is not None
        held_out = self._config.held_out
        requests = held_out.requests(self.trainer.global_rank, self.trainer.world_size)
        scenes = PreparedScenes(requests, self._prepare)
        return scene_loader(scenes, range(len(requests)), min(1, self._config.run.num_workers))


def _initial_network(config: MiniTrainingConfig) -> VGGT:
    """Return random weights, or those of a folder.

    Raises:
        UserError: The folder's weights are missing, or of another network than the settings'.
    """
    run = config.run
    if run.init_weights is None:
        return random_vggt(config.network, run.training_seed, run.layer_scale)
    if run.ckpt is not None:
        raise UserError("give ckpt to resume a run, or init_weights to start one, but not both")
    network = VGGT.from_pretrained(run.init_weights)
    differing = differing_settings(asdict(config.network), asdict(network.config))
    if differing:
        name, ours, theirs = differing[0]
        raise UserError(
            f"{run.init_weights}: has {name}={theirs!r}, but the settings say {ours!r}; "
            "give the settings that these weights were trained with"
        )
    return network.train()


def _training_request(
    config: MiniTrainingConfig, rank: int, world_size: int, batch: int
) -> SceneRequest:
    patch, seed = config.network.patch_size, config.run.training_seed
    plan = plan_step(config.curriculum, batch * config.replay.visits, patch, seed)
    ids = plan.scene_ids(batch, rank, world_size)
    return SceneRequest(ids, plan.num_views, plan.size, plan.difficulty)


class ExportAverage(Callback):
    """Write the averaged weights after every validation and at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the exported weights."""
        assert isinstance(pl_module, VGGTMiniModule)
        if trainer.is_global_zero and not trainer.sanity_checking:
            export_vggt(pl_module.average, self.folder, max_bytes=None)

    on_train_end = on_validation_end


def _build_trainer(config: MiniTrainingConfig, folder: Path) -> pl.Trainer:
    run = config.run
    last_step = config.optimizer.max_steps
    return pl.Trainer(
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.num_nodes,
        strategy=run.strategy,
        precision="32-true",  # The module applies autocast where it is harmless.
        max_steps=last_step if run.stop_at < 0 else min(run.stop_at, last_step),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=LOG_EVERY,
        logger=TensorBoardLogger(folder, name="", version="logs"),
        callbacks=[
            LastCheckpoint(folder / "ckpts", run.save_every),
            ExportAverage(folder / "export"),
            # Showing a number waits for the device.
            TQDMProgressBar(refresh_rate=LOG_EVERY),
        ],
        plugins=[AtomicCheckpointIO()],
        enable_checkpointing=False,
    )


def _checked_resume(config: MiniTrainingConfig) -> Path:
    path = resolve_checkpoint(str(config.run.ckpt))
    checkpoint = load_safely(path)
    if "vggt_mini" not in checkpoint:
        raise UserError(f"{path}: is not a checkpoint of the small backbone's training")
    theirs = checkpoint["vggt_mini"]
    check_resumed_settings(
        path, asdict(config), theirs, STRUCTURAL, ignored=("run.",), restart="--init_weights"
    )
    return path
