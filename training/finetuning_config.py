"""Everything that fine-tuning one scene can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from evaluation.config import DataChoice
from models.config import CostVolumeConfig, FeaturePyramidConfig, RadianceFieldConfig
from training.finetuning_optimization import SceneOptimizerConfig
from training.finetuning_step import SceneLossConfig, StepSettings
from training.losses import LossConfig
from training.ray_batches import RayBatchConfig


@dataclass(frozen=True)
class SceneRunConfig:
    """Where a run lives, what it starts from and on what it runs."""

    expname: str | None = None
    """name of the run; its folder under save_dir/<scan>; none: vggt_finetune_<scan>"""
    save_dir: str = "runs_fine_tuning"
    """folder of all runs"""
    ckpt: str | None = None
    """resume this run exactly: its latest.tar"""
    init_ckpt: str = "ckpts/vggt-mini-nerf"
    """checkpoint of general training to start from; of a folder the newest one in it"""
    vggt_path: str | None = None
    """folder of the backbone, where it is not at the place that init_ckpt remembers"""
    N_planes: int | None = None
    """depth planes of the coarse volume; as init_ckpt has it unless given"""
    N_samples: int | None = None
    """samples on each ray; as init_ckpt has it unless given"""
    encode_views: int = 3
    """views that are encoded together: each training view with its nearest others"""
    seed: int = 0
    """seed of everything random"""
    val_every: int = 500
    """steps between validations on the test views"""
    save_every: int = 2000
    """steps between writes of latest.tar; it is also written at the end"""
    chunk: int = 16384
    """rays in one go when whole images are rendered; bounds the memory"""
    accelerator: Literal["auto", "gpu", "cpu"] = "auto"
    """where to run; auto: on a GPU if there is one"""
    precision: Literal["auto", "bf16-mixed", "32-true"] = "auto"
    """auto: bf16-mixed on a GPU, 32-true elsewhere"""

    def __post_init__(self) -> None:
        """Refuse counts that do nothing."""
        for name in ("encode_views", "val_every", "save_every", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")


@dataclass(frozen=True)
class FineTuningConfig:
    """All settings of ``train_vggt_nerf_finetuning_pl.py``.

    The sizes of the model are among them only for configs that carry them along: the checkpoint
    has the last word. So are the weights of losses that need true depth, which is not looked at.
    """

    run: SceneRunConfig = field(default_factory=SceneRunConfig)
    data: DataChoice = field(default_factory=DataChoice)
    optimizer: SceneOptimizerConfig = field(default_factory=SceneOptimizerConfig)
    rays: RayBatchConfig = field(default_factory=RayBatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    scene_loss: SceneLossConfig = field(default_factory=SceneLossConfig)
    pyramid: FeaturePyramidConfig = field(default_factory=FeaturePyramidConfig)
    volume: CostVolumeConfig = field(default_factory=CostVolumeConfig)
    radiance_field: RadianceFieldConfig = field(default_factory=RadianceFieldConfig)

    def __post_init__(self) -> None:
        """Refuse what would do nothing."""
        if self.loss.lpips_weight:
            raise ValueError(
                f"lpips_weight={self.loss.lpips_weight}: fine-tuning has no such loss; leave it 0"
            )

    @property
    def step(self) -> StepSettings:
        """What a step draws and minimises."""
        optimizer, views = self.optimizer, self.data.n_views
        return StepSettings(
            self.rays,
            self.loss,
            self.scene_loss,
            rays_per_step=optimizer.batch_size,
            targets_per_step=optimizer.targets_per_step,
            sources_per_step=min(optimizer.step_sources or views, views),
        )
