"""A training run of the small backbone, and the evaluation of exported weights."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LambdaCallback, TQDMProgressBar

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.generator import ProceduralGenerator
from models.vggt.network import VGGT, random_vggt
from training.callbacks import GradientGuard, tensorboard_logger
from training.checkpointing import AtomicCheckpointIO, LastCheckpoint, exclusive_run_folder
from training.rank_failure import end_on_lost_rank
from training.resuming import check_resumed_settings, checked_restore
from training.vggt.config import MiniTrainingConfig
from training.vggt.evaluation import comparison_table
from training.vggt.module import VGGTMiniModule
from training.vggt.scenes import MiniData
from utils.checkpoints import load_safely, resolve_checkpoint
from utils.config import differing_settings
from utils.devices import check_devices, choose_devices
from utils.errors import UserError

_LOG_EVERY = 20
_MAX_BAD_STEPS = 50
_LAYER_SCALE = 1.0
"""Initial scale of the residual branches. VGGT's 0.01 suits a pretrained patch embedding; without
one, correspondence is learnt half as fast with it."""


def run_mini_training(
    config: MiniTrainingConfig, planner: ProceduralGenerator | None = None
) -> Path:
    """Train on procedural scenes and return the folder of the averaged weights."""
    run = config.run
    check_devices(run.device, run.devices)
    folder = Path(run.save_dir) / run.expname
    with exclusive_run_folder(folder):
        resume = checked_resume(config, run.ckpt) if run.ckpt else None
        network = _initial_network(config)
        planner = planner or _generator(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.training_seed)
            module = VGGTMiniModule(network, config)
        trainer = _build_trainer(config, folder)
        with checked_restore(resume, trainer), end_on_lost_rank(trainer):
            trainer.fit(module, MiniData(config, planner), ckpt_path=resume, weights_only=True)
    return folder / "export"


def evaluate_folder(config: MiniTrainingConfig) -> str:
    """Return a table of the held-out metrics of exported weights and of a trivial prediction."""
    (device,) = choose_devices(config.run.device)
    network = VGGT.from_pretrained(str(config.run.evaluate)).to(device)
    try:
        replace(config, network=network.config)
    except ValueError as error:
        raise UserError(f"{config.run.evaluate}: {error}") from error
    return "\n".join(comparison_table(network, _generator(config, device), config.held_out))


def _generator(
    config: MiniTrainingConfig, device: torch.device | str = "cpu"
) -> ProceduralGenerator:
    return ProceduralGenerator(ProceduralConfig(**asdict(config.scenes)), device)


def _initial_network(config: MiniTrainingConfig) -> VGGT:
    """Return a network with random weights, or with those of ``init_weights``."""
    run = config.run
    if run.init_weights is None:
        return random_vggt(config.network, run.training_seed, _LAYER_SCALE)
    network = VGGT.from_pretrained(run.init_weights)
    for name, ours, theirs in differing_settings(asdict(config.network), asdict(network.config)):
        raise UserError(
            f"{run.init_weights}: has {name}={theirs!r}, but the settings say {ours!r}; "
            "give the settings that these weights were trained with"
        )
    return network.train()


def _build_trainer(config: MiniTrainingConfig, folder: Path) -> pl.Trainer:
    run, last_step = config.run, config.optimizer.max_steps

    def export(trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, VGGTMiniModule)
        if trainer.is_global_zero and not trainer.sanity_checking:
            module.average.save_pretrained(folder / "export")

    return pl.Trainer(
        accelerator=run.device,
        devices=run.devices,
        precision="32-true",  # The module applies autocast where precision suffices.
        max_steps=last_step if run.stop_at < 0 else min(run.stop_at, last_step),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        log_every_n_steps=_LOG_EVERY,
        logger=tensorboard_logger(folder, config),
        callbacks=[
            GradientGuard(max_bad_steps=_MAX_BAD_STEPS),
            LastCheckpoint(folder / "ckpts", run.save_every),
            LambdaCallback(on_validation_end=export, on_train_end=export),
            # Rarely, as each refresh waits for the device.
            TQDMProgressBar(refresh_rate=_LOG_EVERY),
        ],
        plugins=[AtomicCheckpointIO(folder)],
        enable_checkpointing=False,
    )


def checked_resume(config: MiniTrainingConfig, ckpt: str) -> Path:
    """Find the checkpoint and compare its settings before anything is built."""
    path = resolve_checkpoint(ckpt)
    checkpoint = load_safely(path)
    if "vggt_mini" not in checkpoint:
        raise UserError(f"{path}: is not a checkpoint of the small backbone's training")
    saved, groups = checkpoint["vggt_mini"], (("network.",), ("run.",))
    check_resumed_settings(path, config, saved, *groups, restart="--init_weights")
    return path
