"""Settings for training the small backbone; importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from datasets.procedural.config import ReplayConfig, WorldConfig
from models.vggt.config import VGGTConfig
from utils.settings import Alias, Count, NonNegativeInt, Rate, Settings, Within

MIN_VIEWS = 2
MAX_HELD_OUT = 1_000_000
"""Number of the first training scene, as in ``datasets.replay``; held-out ones are below."""

Aspects = Annotated[tuple[float, ...], Within(0, above=True)]


@dataclass(frozen=True)
class RunConfig(Settings):
    """Folder, initial weights and hardware of a run."""

    expname: str = "vggt_mini"
    """name of the run; its folder under save_dir"""
    save_dir: str = "runs_mini"
    """folder of all runs"""
    ckpt: str | None = None
    """resume this run exactly"""
    init_weights: str | None = None
    """start a new run from a folder of exported weights"""
    evaluate: str | None = None
    """do not train, but print the held-out metrics of a folder of exported weights"""
    training_seed: int = 0
    """seed of weights, image shapes and colour augmentation"""
    val_every: Count = 1000
    """steps between validations; each writes the averaged weights to export/"""
    save_every: Count = 500
    """steps between writes of last.ckpt"""
    stop_at: int = -1
    """stop after this step; -1: at max_steps"""
    num_workers: NonNegativeInt = 2
    """processes per device that prepare scenes; 0: none"""
    network_precision: Literal["auto", "bf16", "32"] = "auto"
    """arithmetic of the network; auto: bf16 on a GPU, 32 elsewhere"""
    device: Annotated[str, Alias(("accelerator",))] = "auto"
    """auto, gpu or cpu"""
    devices: str = "auto"
    """number of GPUs, auto, or a list like 0,2"""


@dataclass(frozen=True)
class CurriculumConfig(Settings):
    """Image shapes, view counts and difficulty of training scenes over time."""

    ramp_steps: NonNegativeInt = 15_000
    """steps until the final resolution, number of views and difficulty are reached"""
    ramp_stages: Count = 5
    """stages of the ramp; few, since every new image shape is compiled"""
    start_max_views: Annotated[int, Within(MIN_VIEWS)] = 4
    """maximum views of a scene at the start"""
    max_views: Annotated[int, Within(MIN_VIEWS)] = 8
    """maximum views of a scene at the end"""
    start_patches: Count = 108
    """patches of an image at the start"""
    end_patches: Count = 320
    """patches of an image at the end; 320 are 224x280 pixels"""
    patch_spread: Annotated[float, Within(1, 100)] = 1.0
    """largest factor by which the number of patches deviates from that of the stage"""
    patches_per_step: Count = 32_768
    """patches per step and device, which determine the number of scenes"""
    aspects: Aspects = (0.75, 1.0, 1.25, 1.34, 1.5, 1.78)
    """ratios of width to height to draw from"""
    start_difficulty: float = 0.0
    """difficulty of the scenes at the start; it rises to 1"""

    def __post_init__(self) -> None:
        """Check that a step can hold the largest scene."""
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
        per_view = round(max(self.start_patches, self.end_patches) * self.patch_spread)
        return per_view * self.max_views


@dataclass(frozen=True)
class HeldOutConfig(Settings):
    """Validation scenes."""

    val_scenes: Annotated[int, Within(1, MAX_HELD_OUT)] = 64
    """number of held-out scenes"""
    val_views: Annotated[int, Within(2)] = 4
    """views of each scene"""
    val_height: Count = 224
    """image height in pixels"""
    val_width: Count = 280
    """image width in pixels"""


@dataclass(frozen=True)
class OptimizerConfig(Settings):
    """AdamW with a linear warm-up and a cosine decay."""

    lrate: Rate = 1e-3
    """learning rate after the warm-up"""
    warmup_steps: Count = 1000
    """steps over which the learning rate rises from 0"""
    max_steps: Count = 60_000
    """steps of the whole training"""
    matching_until: NonNegativeInt = 20_000
    """step at which the weight of the matching losses reaches 0; 0: no matching losses"""


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
        """Check rules across components."""
        patch = self.network.patch_size
        if self.held_out.val_height % patch or self.held_out.val_width % patch:
            raise ValueError(
                f"val_height={self.held_out.val_height} and val_width={self.held_out.val_width} "
                f"must be multiples of patch_size={patch}"
            )
        if self.run.ckpt and self.run.init_weights:
            raise ValueError("give ckpt to resume a run, or init_weights to start one, not both")
