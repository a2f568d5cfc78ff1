"""Settings of general training and of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from datasets.config import DataChoice, DataConfig
from datasets.procedural.config import ProceduralDataConfig, ReplayConfig
from evaluation.config import DeviceName
from models.baselines.config import MVSNERF_VIEWS, BaselineConfig, ModelName
from models.config import BackboneConfig, ModelConfig
from utils.settings import (
    Alias,
    Count,
    NonNegative,
    NonNegativeInt,
    Planes,
    Rate,
    Settings,
    Share,
    Weight,
    Within,
)

Device = Annotated[DeviceName, Alias(("accelerator",))]


@dataclass(frozen=True)
class RunConfig(Settings):
    """Folder, start and hardware of a general training run."""

    model: ModelName = "vggt_nerf"
    """model to train; mvsnerf and point_regression are baselines"""
    expname: str = "vggt_mvs_general_train_v1"
    """name of the run; its folder under save_dir"""
    save_dir: str = "runs_new"
    """folder of all runs"""
    ckpt: str | None = None
    """resume this run exactly; {epoch:02d} in the path stands for the newest epoch"""
    init_ckpt: str | None = None
    """start a new run from the weights of this checkpoint"""
    seed: int = 0
    """random seed"""
    num_epochs: Count = 10
    """passes over the training data"""
    save_every: Count = 500
    """steps between writes of last.ckpt"""
    val_chunk: Count | None = None
    """pixels rendered at once in whole images; none: as many as fit into free memory"""
    device: Device = "auto"
    """auto: on GPUs if there are any"""
    devices: str = "auto"
    """number of devices, auto for all, or a list like 0,2"""
    num_nodes: Count = 1
    """number of machines"""
    strategy: str = "auto"
    """Lightning's strategy: auto, ddp, ..."""
    precision: Literal["auto", "bf16-mixed", "16-mixed", "32-true"] = "auto"
    """auto: bf16-mixed on a GPU, 32-true elsewhere"""

    def __post_init__(self) -> None:
        """Check that at most one initial checkpoint is given."""
        super().__post_init__()
        if self.ckpt and self.init_ckpt:
            raise ValueError("--ckpt resumes a run and --init_ckpt starts one: give only one")


@dataclass(frozen=True)
class OptimizerConfig(Settings):
    """AdamW with a linear warm-up and a cosine decay."""

    batch_size: Count = 2048
    """pixels per step on each device, divided among the targets: one window of each"""
    lrate: Rate = 5e-4
    """learning rate after the warm-up"""
    warmup_steps: Count = 500
    """steps over which the learning rate rises from 0"""
    backbone_lrate: Annotated[float, Within(0, 10)] = 0.1
    """learning rate of a trained backbone, as a share of lrate"""
    average_decay: Annotated[float, Within(0, 1, below=True)] = 0.998
    """decay of the moving average of the weights, which checkpoints hold; 0: no average"""


@dataclass(frozen=True)
class LossConfig(Settings):
    """Weights of the loss terms."""

    coarse_weight: Weight = 0.2
    """weight of the cost volume's colour error, relative to the decoder's"""
    depth_weight: Weight = 0.02
    """weight of the rendered depth's error, relative to the depth range, where depth is known"""
    planes_weight: Annotated[Weight, Alias(("plane_weight",))] = 0.02
    """weight of the cross-entropy of the cost volume's weights with the true depth"""
    ssim_weight: Weight = 0.05
    """weight of the windows' dissimilarity, (1 - SSIM) / 2"""
    lpips_weight: Weight = 0.0
    """weight of the windows' LPIPS; needs VGG-16's weights on the machine"""
    composited_weight: Weight = 0.5
    """weight of the composited colours' error, relative to the decoder's"""
    source_planes_weight: Weight = 0.0
    """as planes_weight, for the cost volumes of the source views"""
    geometry_weight: Weight = 0.0
    """weight of the backbone's own losses of cameras, depth and points; above 0 the backbone is
    trained, too, at the rate backbone_lrate; needs sources with depth"""


@dataclass(frozen=True)
class AugmentationConfig(Settings):
    """Random augmentation of training samples."""

    source_dropout: Share = 0.1
    """probability of dropping each source but the first"""
    camera_noise: NonNegative = 0.0
    """largest standard deviation, in pixels, of simulated errors of the source cameras; applied
    to procedural worlds, whose cameras are exact"""


@dataclass(frozen=True)
class GeneralTrainingConfig:
    """All settings of ``train_vggt_nerf_pl.py``."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    worlds: ProceduralDataConfig = field(default_factory=ProceduralDataConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    baselines: BaselineConfig = field(default_factory=BaselineConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    essential_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "the model": ("model",),
        "the data": ("dataset_name", "datadir", "vggt_path"),
        "the run": ("expname", "save_dir", "ckpt", "init_ckpt"),
        "length and quality": ("num_epochs", "batch_size", "lrate", "N_planes", "N_samples"),
        "hardware": ("device", "devices", "num_workers"),
    }

    def __post_init__(self) -> None:
        """Check rules across components."""
        if self.optimizer.batch_size % (self.data.scenes_per_batch * self.data.num_targets):
            raise ValueError(
                f"batch_size={self.optimizer.batch_size} pixels cannot be shared evenly by "
                f"{self.data.scenes_per_batch} scenes x {self.data.num_targets} targets"
            )
        data = self.data
        counts = {data.min_sources, data.max_sources, data.num_source_views}
        if self.run.model == "mvsnerf" and counts != {MVSNERF_VIEWS}:
            raise ValueError(
                f"model=mvsnerf reads {MVSNERF_VIEWS} sources: give --min_sources {MVSNERF_VIEWS} "
                f"--max_sources {MVSNERF_VIEWS} --num_source_views {MVSNERF_VIEWS}"
            )
        if self.augmentation.camera_noise and not data.share_of_worlds:
            raise ValueError(
                f"camera_noise={self.augmentation.camera_noise:g} is for procedural worlds, whose "
                "cameras are exact; give --camera_noise 0"
            )
        trainable = data.share_of_worlds == 1 and self.backbone.backbone == "vggt"
        if self.loss.geometry_weight and not trainable:
            raise ValueError(
                f"geometry_weight={self.loss.geometry_weight} trains a backbone, and needs the "
                "depth of all sources: give --dataset_name procedural and no --backbone none"
            )


@dataclass(frozen=True)
class SceneRunConfig(Settings):
    """Folder, start and hardware of a fine-tuning run."""

    expname: str | None = None
    """name of the run; its folder under save_dir/<scan>; none: vggt_finetune_<scan>"""
    save_dir: str = "runs_fine_tuning"
    """folder of all runs"""
    ckpt: str | None = None
    """resume this run exactly: its latest.tar"""
    init_ckpt: str = "ckpts/vggt-mini-nerf"
    """checkpoint of general training to start from; of a folder the newest one in it"""
    vggt_path: str | None = None
    """folder of the backbone, if it is not where init_ckpt says"""
    N_planes: Planes | None = None
    """depth planes of the cost volume; none: as in init_ckpt"""
    N_samples: Planes | None = None
    """samples on each ray; none: as in init_ckpt"""
    seed: int = 0
    """random seed"""
    val_every: Count = 500
    """steps between validations on the test views"""
    save_every: Count = 2000
    """steps between writes of latest.tar; it is also written at the end"""
    chunk: Count | None = None
    """pixels rendered at once in whole images; none: as many as fit into free memory"""
    device: Device = "auto"
    """auto: on a GPU if there is one"""
    precision: Literal["auto", "bf16-mixed", "32-true"] = "auto"
    """auto: bf16-mixed on a GPU, 32-true elsewhere"""


@dataclass(frozen=True)
class SceneOptimizerConfig(Settings):
    """Adam with separate learning rates for networks and maps, warm-up and cosine decay."""

    num_steps: Count = 4000
    """steps of the whole run"""
    max_seconds: NonNegative = 0.0
    """approximate duration that replaces num_steps; 0: num_steps"""
    batch_size: Count = 8192
    """pixels per step"""
    targets_per_step: Count = 2
    """training views that share the pixels of a step: one window of each"""
    step_sources: NonNegativeInt = 0
    """source views of each training view in a step, at most n_views; 0: n_views"""
    spare_sources: NonNegativeInt = 2
    """further nearest views among which the source views of a step are drawn"""
    refine_every: NonNegativeInt = 250
    """steps between estimates of the training views' depth; 0: only before the first step"""
    lrate: Rate = 5e-4
    """learning rate of the networks"""
    lrate_maps: Annotated[float, Within(0, 10)] = 2e-3
    """learning rate of the feature maps"""
    average_decay: Annotated[float, Within(0, 1, below=True)] = 0.995
    """decay of the moving average of the weights, which checkpoints hold; 0: no average"""
    warmup_steps: NonNegativeInt = 50
    """steps over which the learning rates rise from 0"""
    guide_weight: Weight = 0.001
    """weight of the cross-entropy of the cost volume's weights with the rendering weights"""

    def __post_init__(self) -> None:
        """Check that every target has a pixel."""
        super().__post_init__()
        if self.batch_size < self.targets_per_step:
            raise ValueError(
                f"batch_size={self.batch_size} pixels are fewer than "
                f"targets_per_step={self.targets_per_step}"
            )


@dataclass(frozen=True)
class FineTuningConfig:
    """All settings of ``train_vggt_nerf_finetuning_pl.py``.

    The checkpoint decides the sizes of the model.
    """

    run: SceneRunConfig = field(default_factory=SceneRunConfig)
    data: DataChoice = field(default_factory=DataChoice)
    optimizer: SceneOptimizerConfig = field(default_factory=SceneOptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    given: ClassVar[frozenset[str]] = frozenset()
    """Names of the settings from files and flags, set by ``parse_config``."""
    essential_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "the scene": ("dataset_name", "datadir", "n_views"),
        "the initial model": ("init_ckpt", "ckpt", "vggt_path"),
        "the output": ("expname", "save_dir"),
        "length and quality": ("num_steps", "batch_size", "N_samples", "val_every"),
        "hardware": ("device",),
    }
