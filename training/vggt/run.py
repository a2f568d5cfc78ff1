"""A training run of the small backbone: its folder, its trainer, its end."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger

from models.vggt.network import VGGT, random_vggt
from training.callbacks import GradientGuard
from training.checkpointing import AtomicCheckpointIO, LastCheckpoint, check_resumed_settings
from training.vggt.config import MiniTrainingConfig
from training.vggt.evaluation import comparison_table
from training.vggt.module import VGGTMiniModule
from training.vggt.scenes import MiniData, SceneSource, procedural_source
from utils.config import differing_settings
from utils.devices import choose_devices
from utils.errors import UserError
from utils.files import check_output_folder, load_safely, resolve_checkpoint

LOG_EVERY = 20
MAX_BAD_STEPS = 50
LAYER_SCALE = 1.0
"""Initial weight of the residual branches. VGGT's 0.01 is for a trained patch embedding; from
scratch it halves the speed at which matching is learnt."""


def run_mini_training(config: MiniTrainingConfig, source: SceneSource | None = None) -> Path:
    """Train, by default on procedural scenes, and return the folder of the averaged weights."""
    run = config.run
    folder = check_output_folder(Path(run.save_dir) / run.expname)
    resume = _checked_resume(config, run.ckpt) if run.ckpt else None
    network = _initial_network(config)
    source = source or procedural_source(config.scenes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.training_seed)
        module = VGGTMiniModule(network, source.make_renderer, config)
    trainer = _build_trainer(config, folder)
    data = MiniData(config, source.prepare, lambda: module.rendered.numbers)
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return folder / "export"


def evaluate_folder(config: MiniTrainingConfig) -> str:
    """Return a table of the held-out metrics of exported weights beside trivial ones."""
    (device,) = choose_devices(config.run.device)
    network = VGGT.from_pretrained(str(config.run.evaluate)).to(device)
    sample = partial(procedural_source(config.scenes).sample, device=device)
    return "\n".join(comparison_table(network, sample, config.held_out))


class ExportAverage(Callback):
    """Write the averaged weights after every validation and at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the exported weights."""
        assert isinstance(pl_module, VGGTMiniModule)
        if trainer.is_global_zero and not trainer.sanity_checking:
            pl_module.average.save_pretrained(self.folder)

    on_train_end = on_validation_end


def _initial_network(config: MiniTrainingConfig) -> VGGT:
    """Return random weights, or those of a folder."""
    run = config.run
    if run.init_weights is None:
        return random_vggt(config.network, run.training_seed, LAYER_SCALE)
    network = VGGT.from_pretrained(run.init_weights)
    for name, ours, theirs in differing_settings(asdict(config.network), asdict(network.config)):
        raise UserError(
            f"{run.init_weights}: has {name}={theirs!r}, but the settings say {ours!r}; "
            "give the settings that these weights were trained with"
        )
    return network.train()


def _build_trainer(config: MiniTrainingConfig, folder: Path) -> pl.Trainer:
    run = config.run
    last_step = config.optimizer.max_steps
    return pl.Trainer(
        accelerator=run.device,
        devices=run.devices,
        precision="32-true",  # The module applies autocast where it is harmless.
        max_steps=last_step if run.stop_at < 0 else min(run.stop_at, last_step),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=LOG_EVERY,
        logger=TensorBoardLogger(folder, name="", version="logs"),
        callbacks=[
            GradientGuard(max_bad_steps=MAX_BAD_STEPS),
            LastCheckpoint(folder / "ckpts", run.save_every),
            ExportAverage(folder / "export"),
            # Showing a number waits for the device.
            TQDMProgressBar(refresh_rate=LOG_EVERY),
        ],
        plugins=[AtomicCheckpointIO()],
        enable_checkpointing=False,
    )


def _checked_resume(config: MiniTrainingConfig, ckpt: str) -> Path:
    path = resolve_checkpoint(ckpt)
    checkpoint = load_safely(path)
    if "vggt_mini" not in checkpoint:
        raise UserError(f"{path}: is not a checkpoint of the small backbone's training")
    saved, groups = checkpoint["vggt_mini"], (("network.",), ("run.",))
    check_resumed_settings(path, config, saved, *groups, restart="--init_weights")
    return path
