"""Settings of a training run of the small backbone; importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from datasets.procedural.config import ReplayConfig, WorldConfig
from models.vggt.config import VGGTConfig
from utils.settings import Alias, Count, NonNegativeInt, Rate, Settings, Within

MIN_VIEWS = 2
"""Fewest views of a training scene."""
MAX_HELD_OUT = 1_000_000
"""Training scenes are numbered from here on; see ``datasets.planned_scenes``."""

Aspects = Annotated[tuple[float, ...], Within(0, above=True)]


@dataclass(frozen=True)
class RunConfig(Settings):
    """Where a run lives, what it starts from and on what it runs."""

    expname: str = "vggt_mini"
    """name of the run; its folder under save_dir"""
    save_dir: str = "runs_mini"
    """folder of all runs"""
    ckpt: str | None = None
    """resume this run exactly"""
    init_weights: str | None = None
    """start a new run from this folder of weights, as training exports them"""
    evaluate: str | None = None
    """train nothing: print the metrics of this folder of weights on the held-out scenes"""
    training_seed: int = 0
    """seed of weights, shapes and colours; the scenes have their own"""
    val_every: Count = 1000
    """steps between validations; each writes the averaged weights to export/"""
    save_every: Count = 500
    """steps between writes of last.ckpt"""
    stop_at: int = -1
    """stop after this step, to be resumed later; -1: at max_steps"""
    num_workers: NonNegativeInt = 2
    """processes on each device that plan scenes ahead; 0: none"""
    network_precision: Literal["auto", "bf16", "32"] = "auto"
    """arithmetic of the network; auto: bf16 on a GPU, 32 elsewhere"""
    device: Annotated[str, Alias(("accelerator",))] = "auto"
    """where to compute: auto, gpu or cpu"""
    devices: str = "auto"
    """how many GPUs: a count, auto, or a list like 0,2"""


@dataclass(frozen=True)
class CurriculumConfig(Settings):
    """Shapes and difficulty of training scenes over time."""

    ramp_steps: NonNegativeInt = 15_000
    """steps until the final resolution, number of views and difficulty are reached"""
    ramp_stages: Count = 5
    """levels on the way there: few, since every new image shape costs compilation"""
    start_max_views: Annotated[int, Within(MIN_VIEWS)] = 4
    """most views of a scene at the start"""
    max_views: Annotated[int, Within(MIN_VIEWS)] = 8
    """most views of a scene at the end"""
    start_patches: Count = 108
    """patches of an image at the start"""
    end_patches: Count = 320
    """patches of an image at the end; 320 are 224x280 pixels"""
    patch_spread: Annotated[float, Within(1)] = 1.0
    """images have up to this many times fewer or more patches than the stage says"""
    patches_per_step: Count = 32_768
    """patches in a step on each device; how many scenes that is depends on their shape"""
    aspects: Aspects = (0.75, 1.0, 1.25, 1.34, 1.5, 1.78)
    """ratios of width to height that are drawn from"""
    start_difficulty: float = 0.0
    """difficulty of the scenes at the start; it ends at 1"""

    def __post_init__(self) -> None:
        """Refuse a curriculum that cannot fill a step."""
        super().__post_init__()
        if self.start_max_views > self.max_views or not self.aspects:
            raise ValueError("start_max_views may not exceed max_views, aspects not be empty")
        if self.patches_per_step < self.most_patches:
            raise ValueError(
                f"patches_per_step={self.patches_per_step} does not hold one scene of "
                f"{self.max_views} views of {self.most_patches // self.max_views} patches"
            )

    @property
    def most_patches(self) -> int:
        """Patches of the largest scene."""
        most = round(max(self.start_patches, self.end_patches) * self.patch_spread)
        return most * self.max_views


@dataclass(frozen=True)
class HeldOutConfig(Settings):
    """Scenes of the validation."""

    val_scenes: Annotated[int, Within(1, MAX_HELD_OUT)] = 64
    """held-out scenes"""
    val_views: Annotated[int, Within(2)] = 4
    """views of each"""
    val_height: Count = 224
    """height of the images in pixels"""
    val_width: Count = 280
    """width of the images in pixels"""


@dataclass(frozen=True)
class OptimizerConfig(Settings):
    """AdamW with a linear warm-up and a cosine decay."""

    lrate: Rate = 1e-3
    """learning rate after the warm-up"""
    warmup_steps: Count = 1000
    """steps over which the learning rate rises from 0"""
    max_steps: Count = 60_000
    """steps of the whole training, interruptions included"""
    matching_until: NonNegativeInt = 20_000
    """step at which the auxiliary matching losses have faded out; 0: none"""


@dataclass(frozen=True)
class MiniTrainingConfig:
    """All settings of ``train_vggt_mini_pl.py``."""

    essential_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "the run": ("expname", "save_dir", "ckpt", "init_weights", "evaluate"),
        "length and learning rate": ("max_steps", "lrate", "warmup_steps", "val_every"),
        "scenes": ("patches_per_step", "texture_folder", "visits"),
        "machine": ("device", "devices", "num_workers"),
    }

    run: RunConfig = field(default_factory=RunConfig)
    network: VGGTConfig = field(default_factory=VGGTConfig)
    scenes: WorldConfig = field(default_factory=WorldConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together."""
        patch = self.network.patch_size
        if self.held_out.val_height % patch or self.held_out.val_width % patch:
            raise ValueError(
                f"val_height={self.held_out.val_height} and val_width={self.held_out.val_width} "
                f"must be multiples of patch_size={patch}"
            )
        if self.run.ckpt and self.run.init_weights:
            raise ValueError("give ckpt to resume a run, or init_weights to start one, not both")
