"""A general training run: its settings, its folder, its trainer."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from datasets.data_config import DataConfig
from datasets.data_module import SceneDataModule
from datasets.procedural_data import ProceduralDataConfig as WorldsConfig
from datasets.procedural_data import ProceduralDataModule as WorldsModule
from datasets.replay import ReplayConfig
from models.backbone import BackboneConfig, load_backbone
from models.training.camera_noise import CameraNoiseConfig
from models.training.checkpointing import AtomicCheckpointIO, LastCheckpoint, best_checkpoint
from models.training.exposure import ExposureConfig
from models.training.general_module import GeneralModule, StepConfig
from models.training.losses import LossConfig
from models.training.optimization import OptimizerConfig
from models.training.perceptual_loss import perceptual_loss
from models.training.progress import Throughput, ValidationPictures
from models.training.ray_batches import RayBatchConfig
from models.training.resuming import check_resumed_settings, describe_differences
from models.training.source_dropout import SourceDropoutConfig
from models.vggt_nerf import ModelConfig, VGGTNeRF
from utils.checkpoints import check_writable, load_safely, resolve_checkpoint
from utils.config import differing_settings
from utils.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunConfig:
    """Where a run lives, what it starts from and on what it runs."""

    expname: str = "vggt_mvs_general_train_v1"
    """name of the run; its folder under save_dir"""
    save_dir: str = "runs_new"
    """folder of all runs"""
    ckpt: str | None = None
    """resume this run exactly; {epoch:02d} in the path stands for the newest epoch"""
    init_ckpt: str | None = None
    """start a new run from the weights of this checkpoint"""
    seed: int = 0
    """seed of everything random"""
    num_epochs: int = 10
    """passes over the training data"""
    val_every_n_epochs: int = 1
    """epochs between validations"""
    save_every: int = 500
    """steps between writes of last.ckpt"""
    val_chunk: int = 8192
    """rays in one go when whole images are rendered; bounds the memory"""
    accelerator: str = "auto"
    """Lightning's accelerator: auto, gpu, cpu, ..."""
    devices: str = "auto"
    """Lightning's devices: a count, auto, or a list like 0,2"""
    num_nodes: int = 1
    """machines that take part"""
    strategy: str = "auto"
    """Lightning's strategy: auto, ddp, ..."""
    precision: Literal["auto", "bf16-mixed", "16-mixed", "32-true"] = "auto"
    """auto: bf16-mixed on a GPU, 32-true elsewhere"""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.ckpt and self.init_ckpt:
            raise ValueError("--ckpt resumes a run and --init_ckpt starts one: give only one")
        if self.num_epochs < 1 or self.save_every < 1 or self.val_chunk < 1:
            raise ValueError("num_epochs, save_every and val_chunk must be positive")


@dataclass(frozen=True)
class GeneralTrainingConfig:
    """Everything that a general training run can be told."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    worlds: WorldsConfig = field(default_factory=WorldsConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    rays: RayBatchConfig = field(default_factory=RayBatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    exposure: ExposureConfig = field(default_factory=ExposureConfig)
    dropout: SourceDropoutConfig = field(default_factory=SourceDropoutConfig)
    camera_noise: CameraNoiseConfig = field(default_factory=CameraNoiseConfig)

    def __post_init__(self) -> None:
        """Refuse rays that cannot be shared evenly."""
        shares = self.data.scenes_per_batch * self.data.num_targets
        if self.optimizer.batch_size % shares:
            raise ValueError(
                f"batch_size={self.optimizer.batch_size} rays cannot be shared evenly by "
                f"{self.data.scenes_per_batch} scenes x {self.data.num_targets} targets"
            )


def run_general_training(config: GeneralTrainingConfig) -> Path:
    """Train, and return the folder of the run's checkpoints.

    Raises:
        UserError: Bad input, before any long work.
        TrainingInterrupted: The run was told to stop and has saved.
    """
    folder = check_writable(Path(config.run.save_dir) / config.run.expname)
    resume = _checked_resume(config) if config.run.ckpt else None
    data = _build_data(config)
    module = _build_module(config)
    trainer = build_trainer(config, folder)
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return folder / "ckpts"


def _build_data(config: GeneralTrainingConfig) -> SceneDataModule | WorldsModule:
    if config.data.dataset_name == "procedural":
        return WorldsModule(config.data, config.worlds, config.replay, config.run.seed)
    data = SceneDataModule(config.data, config.run.seed)
    data.setup("fit")
    return data


def build_trainer(config: GeneralTrainingConfig, folder: Path) -> pl.Trainer:
    """Return Lightning's trainer with the project's callbacks and atomic checkpoints."""
    run = config.run
    return pl.Trainer(
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.num_nodes,
        strategy=run.strategy,
        precision=_precision(run),
        max_epochs=run.num_epochs,
        check_val_every_n_epoch=run.val_every_n_epochs,
        num_sanity_val_steps=1,
        use_distributed_sampler=False,
        log_every_n_steps=10,
        logger=TensorBoardLogger(folder, name="", version="logs"),
        callbacks=[
            best_checkpoint(folder / "ckpts"),
            LastCheckpoint(folder / "ckpts", run.save_every),
            Throughput(config.optimizer.batch_size),
            ValidationPictures(folder / "pictures"),
        ],
        plugins=[AtomicCheckpointIO()],
    )


def _precision(run: RunConfig) -> Any:  # noqa: ANN401
    if run.precision != "auto":
        return run.precision
    on_gpu = run.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu else "32-true"


def _build_module(config: GeneralTrainingConfig) -> GeneralModule:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        model = VGGTNeRF(config.model, load_backbone(config.backbone))
    if config.run.init_ckpt:
        _initialise(model, resolve_checkpoint(config.run.init_ckpt))
    step = StepConfig(
        *(config.optimizer, config.rays, config.loss),
        *(config.exposure, config.dropout, config.camera_noise),
    )
    return GeneralModule(
        model,
        step,
        settings=asdict(config),
        seed=config.run.seed,
        chunk=config.run.val_chunk,
        perceptual=perceptual_loss() if config.loss.lpips_weight else None,
    )


def _initialise(model: VGGTNeRF, path: Path) -> None:
    checkpoint = load_safely(path)
    settings = _settings_of(checkpoint, path)
    differing = differing_settings(asdict(model.config), settings["model"])
    structural = [row for row in differing if not row[0].startswith("rendering.")]
    if structural:
        raise UserError(f"{path}: is of another model: {describe_differences(structural)}")
    theirs = checkpoint["vggt_nerf"]["backbone_fingerprint"]
    if theirs != model.backbone.fingerprint:
        logger.warning(
            "%s was trained on another backbone (fingerprint %s, here %s); training has to get "
            "used to this one",
            path,
            theirs,
            model.backbone.fingerprint,
        )
    prefix = "model."
    weights = {key.removeprefix(prefix): value for key, value in checkpoint["state_dict"].items()}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{path}: is of another model, its weights do not fit: {error}") from error


def _checked_resume(config: GeneralTrainingConfig) -> Path:
    """Find the checkpoint and compare its settings with ours before anything is built."""
    path = resolve_checkpoint(str(config.run.ckpt))
    checkpoint = load_safely(path)
    theirs = _settings_of(checkpoint, path)
    if "optimizer_states" not in checkpoint:
        raise UserError(
            f"{path}: was exported without its optimiser and cannot be resumed; start a new run "
            "from its weights with --init_ckpt"
        )
    check_resumed_settings(
        path,
        asdict(config),
        _completed(theirs, asdict(GeneralTrainingConfig())),
        structural=("model.", "backbone."),
        ignored=("run.ckpt", "run.save_dir", "run.expname", "data.num_workers"),
        restart="--init_ckpt",
    )
    return path


def _completed(settings: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """Add what did not exist when a run began: it was then as it is by default."""
    added = {name: settings.get(name, value) for name, value in usual.items()}
    parts = {
        name: _completed(value, usual[name])
        for name, value in settings.items()
        if isinstance(value, dict) and isinstance(usual.get(name), dict)
    }
    return {**settings, **added, **parts}


def _settings_of(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    if "vggt_nerf" not in checkpoint or "state_dict" not in checkpoint:
        raise UserError(f"{path}: is not a checkpoint of general training")
    return checkpoint["vggt_nerf"]["settings"]
