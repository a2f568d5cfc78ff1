"""Everything that an evaluation can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from datasets.config import DataChoice, HeldOutScenes


@dataclass(frozen=True)
class ModelChoice:
    """What renders, and where."""

    ckpt: str = "ckpts/vggt-mini-nerf"
    """Checkpoint; of a folder the newest one in it"""
    vggt_path: str | None = None
    """Folder of the backbone, where it is not at the place that the checkpoint remembers"""
    chunk: int = 8192
    """Rays in one go: bounds the memory and changes no result"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Arithmetic of the model; the backbone uses bfloat16 on a GPU whatever this says"""
    accelerator: Literal["auto", "gpu", "cpu"] = "auto"
    """Where to render; auto: on a GPU if there is one"""
    devices: int = 1
    """GPUs that share the views of a scene; changes no result but the seconds"""

    def __post_init__(self) -> None:
        """Refuse counts that do nothing.

        Raises:
            ValueError: Names the value.
        """
        if self.chunk < 1 or self.devices < 1:
            raise ValueError(f"chunk={self.chunk} and devices={self.devices} must be positive")


@dataclass(frozen=True)
class SamplingChoice:
    """How rays are sampled, where it is not as the checkpoint has it."""

    N_planes: int | None = None
    """Depth planes of the coarse volume; as the checkpoint has it unless given"""
    N_samples: int | None = None
    """Samples on each ray; as the checkpoint has it unless given"""
    sampling_floor: float | None = None
    """Share of the samples that ignores the coarse volume; 1 spreads all of them evenly"""
    sampling_spread: bool | None = None
    """Whether samples are also drawn beside where the volume found mass; as the checkpoint has it
    unless given"""


@dataclass(frozen=True)
class OutputChoice:
    """What is written."""

    out: str = "results/evaluation.json"
    """File for all figures"""
    save_images: str | None = None
    """Folder for prediction, truth, error and depth of every view; none: no pictures"""
    lpips_weights: str | None = None
    """VGG-16 weights of torchvision for LPIPS; none: where PyTorch keeps them once downloaded"""


@dataclass(frozen=True)
class EvaluationConfig:
    """All settings of ``evaluate_vggt_nerf.py``."""

    data: DataChoice = field(default_factory=DataChoice)
    held_out: HeldOutScenes = field(default_factory=HeldOutScenes)
    model: ModelChoice = field(default_factory=ModelChoice)
    sampling: SamplingChoice = field(default_factory=SamplingChoice)
    output: OutputChoice = field(default_factory=OutputChoice)
