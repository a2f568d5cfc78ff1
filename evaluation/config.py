"""Settings of an evaluation; importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from datasets.config import DataChoice, HeldOutScenes
from utils.settings import Alias, Count, Planes, Settings

DEFAULT_CKPT = "ckpts/vggt-mini-nerf"
"""The general model of this repository."""
DeviceName = Literal["auto", "gpu", "cuda", "cpu"]


@dataclass(frozen=True)
class RenderingModel(Settings):
    """Device, memory and precision of rendering."""

    vggt_path: str | None = None
    """folder of the backbone, if it is not where the checkpoint says"""
    chunk: Count | None = None
    """pixels rendered at once, without effect on results; none: as many as fit into free memory"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """arithmetic of the model; the backbone uses bfloat16 on a GPU in any case"""
    device: Annotated[DeviceName, Alias(("accelerator",))] = "auto"
    """auto: on a GPU if there is one"""

    @property
    def bf16(self) -> bool:
        """Whether the model computes in bfloat16."""
        return self.precision == "bf16-mixed"


@dataclass(frozen=True)
class ModelChoice(RenderingModel):
    """The evaluated model."""

    ckpt: str = DEFAULT_CKPT
    """checkpoint, or a folder for its newest checkpoint"""
    devices: Count = 1
    """GPUs that share the views of a scene"""


@dataclass(frozen=True)
class SamplingChoice:
    """Sampling of rays; unset values are those of the checkpoint."""

    N_planes: Planes | None = None
    """depth planes of the cost volume; none: as in the checkpoint"""
    N_samples: Planes | None = None
    """samples on each ray; none: as in the checkpoint"""
    sampling_floor: float | None = None
    """share of the samples that ignores the cost volume; 1: all samples are uniform"""
    sampling_spread: bool | None = None
    """also sample next to planes with weight; none: as in the checkpoint"""


@dataclass(frozen=True)
class OutputChoice:
    """Output files, and the weights of LPIPS."""

    out: str = "results/evaluation.json"
    """JSON file of all scores"""
    save_images: str | None = None
    """folder for prediction, truth, error and depth of every view; none: no pictures"""
    lpips_weights: str | None = None
    """VGG-16 weights of torchvision for LPIPS; none: PyTorch's download cache"""


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
