"""Settings of an evaluation; importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from utils.settings import Alias, Count, Settings

DEFAULT_CKPT = "ckpts/vggt-mini-nerf"
"""The general model that ships."""
DeviceName = Literal["auto", "gpu", "cuda", "cpu"]


@dataclass(frozen=True)
class DataChoice:
    """What is rendered, from what."""

    dataset_name: Literal[
        "dtu", "blendedmvs", "llff", "blender", "transforms", "colmap", "photos", "procedural"
    ] = "dtu"
    """Format of the data; procedural scenes need none"""
    datadir: str = "data/dtu"
    """Folder of the data: for dtu all scans or one (data/dtu/scan2), else a scene or a folder of
    scenes"""
    scans: str = ""
    """Scans of a DTU folder, separated by commas; empty: its list of test scans"""
    targets: tuple[int, ...] = ()
    """Views to render; none: those of the data set's protocol"""
    sources: tuple[int, ...] = ()
    """Views that the sources of a target are taken from, those nearest to it; none: the pool of
    the data set's protocol"""
    n_views: int = 3
    """Source views of a target"""
    image_size: tuple[int, ...] = ()
    """Height and width, for all but dtu; none: those of the protocol"""
    image_scale: float = 1.0
    """Shrinks the images of dtu"""
    near_far: tuple[float, ...] = ()
    """Nearest and farthest depth for transforms, colmap, blender and photos, in the scene's own
    units; none: as the files have them"""
    background: Literal["white", "black"] = "white"
    """What shows through the transparent pixels of blender"""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: Names the value.
        """
        if self.n_views < 1:
            raise ValueError(f"n_views={self.n_views}: at least one source view is needed")
        for name in ("image_size", "near_far"):
            value = getattr(self, name)
            if len(value) not in (0, 2):
                raise ValueError(f"{name} takes two numbers, got {len(value)}")
            if value and min(value) <= 0:
                raise ValueError(f"{name}={value} must be positive")
        repeated = [view for view in self.targets if self.targets.count(view) > 1]
        if repeated:
            raise ValueError(f"targets names view {repeated[0]} twice")
        never = {"image_size": ("dtu",), "near_far": ("dtu", "llff", "blendedmvs", "procedural")}
        for name, formats in never.items():
            if getattr(self, name) and self.dataset_name in formats:
                raise ValueError(f"{name} cannot be chosen for dataset_name={self.dataset_name}")

    @property
    def size(self) -> tuple[int, int] | None:
        """The chosen height and width, if they were chosen."""
        return (self.image_size[0], self.image_size[1]) if self.image_size else None


@dataclass(frozen=True)
class HeldOutScenes:
    """Procedural worlds of a seed that is kept for evaluation."""

    world_seed: int = 90210
    """Seed of the worlds; no training may use it"""
    num_worlds: int = 16
    """Worlds; each is shown with its textures and, as the textureless subset, without"""
    world_views: int = 8
    """Views of a world, the first world_targets of which are rendered"""
    world_targets: int = 2
    """Views of a world to render, unless targets names some"""
    world_difficulty: float = 0.5
    """0: near views of little clutter, 1: wide baselines, clutter, changing light"""

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to do.

        Raises:
            ValueError: Names the value.
        """
        if self.num_worlds < 1 or not 1 <= self.world_targets < self.world_views:
            raise ValueError(
                f"num_worlds={self.num_worlds}, world_targets={self.world_targets} of "
                f"world_views={self.world_views}: need a world, a target and a view beside it"
            )
        if not 0 <= self.world_difficulty <= 1:
            raise ValueError(f"world_difficulty={self.world_difficulty} must lie in [0, 1]")


@dataclass(frozen=True)
class RenderingModel(Settings):
    """Where a model renders, and how."""

    vggt_path: str | None = None
    """folder of the backbone, if it is not where the checkpoint says"""
    chunk: Count = 8192
    """rays rendered at once: bounds the memory and changes no result"""
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

    N_planes: int | None = None
    """depth planes of the cost volume; none: as the checkpoint has it"""
    N_samples: int | None = None
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
        "the data": ("dataset_name", "datadir", "scans", "image_size"),
        "the views": ("targets", "sources", "n_views"),
        "the results": ("out", "save_images"),
    }

    data: DataChoice = field(default_factory=DataChoice)
    held_out: HeldOutScenes = field(default_factory=HeldOutScenes)
    model: ModelChoice = field(default_factory=ModelChoice)
    sampling: SamplingChoice = field(default_factory=SamplingChoice)
    output: OutputChoice = field(default_factory=OutputChoice)
