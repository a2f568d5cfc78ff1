"""Settings of an evaluation; importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from datasets.config import DataChoice, HeldOutScenes
from utils.settings import Alias, Count, Planes, Settings

DEFAULT_CKPT = "ckpts/vggt-mini-nerf"
"""The general model that ships."""
DeviceName = Literal["auto", "gpu", "cuda", "cpu"]


@dataclass(frozen=True)
class RenderingModel(Settings):
    """Where a model renders, and how."""

    vggt_path: str | None = None
    """folder of the backbone, if it is not where the checkpoint says"""
    chunk: Count | None = None
    """pixels rendered at once: bounds the memory and changes no result; none: as many as free
    memory takes"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """arithmetic of the model; the backbone uses bfloat16 on a GPU in any case"""
    device: Annotated[DeviceName, Alias(("accelerator",))] = "auto"
    """where to render; auto: on a GPU if there is one"""

    @property
    def bf16(self) -> bool:
        """Whether the model computes in bfloat16."""
        return self.precision == "bf16-mixed"


@dataclass(frozen=True)
class ModelChoice(RenderingModel):
    """The model that is evaluated."""

    ckpt: str = DEFAULT_CKPT
    """checkpoint; of a folder the newest one in it"""
    devices: Count = 1
    """GPUs that share the views of a scene; changes no result but the seconds"""


@dataclass(frozen=True)
class SamplingChoice:
    """How rays are sampled, where it is not as the checkpoint has it."""

    N_planes: Planes | None = None
    """depth planes of the cost volume; none: as the checkpoint has it"""
    N_samples: Planes | None = None
    """samples on each ray; none: as the checkpoint has it"""
    sampling_floor: float | None = None
    """share of the samples that ignores the cost volume; 1 spreads all of them evenly"""
    sampling_spread: bool | None = None
    """also sample beside the planes that have weight; none: as the checkpoint has it"""


@dataclass(frozen=True)
class OutputChoice:
    """What is written."""

    out: str = "results/evaluation.json"
    """JSON file for all figures"""
    save_images: str | None = None
    """folder for prediction, truth, error and depth of every view; none: no pictures"""
    lpips_weights: str | None = None
    """VGG-16 weights of torchvision for LPIPS; none: where PyTorch keeps them once downloaded"""


@dataclass(frozen=True)
class EvaluationConfig:
    """All settings of ``evaluate_vggt_nerf.py``."""

    essential_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "the model": ("ckpt", "device"),
        "the data": ("dataset_name", "datadir", "scan", "image_size"),
        "the views": ("targets", "sources", "n_views"),
        "the results": ("out", "save_images"),
    }

    data: DataChoice = field(default_factory=DataChoice)
    held_out: HeldOutScenes = field(default_factory=HeldOutScenes)
    model: ModelChoice = field(default_factory=ModelChoice)
    sampling: SamplingChoice = field(default_factory=SamplingChoice)
    output: OutputChoice = field(default_factory=OutputChoice)
