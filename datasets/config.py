"""Settings of data sets. This module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from datasets.data_source import DataSource, parse_source
from datasets.formats.options import ReadOptions
from datasets.formats.registry import choose_scenes, recognise_format
from datasets.formats.splits import Split
from datasets.procedural.config import HELD_OUT_SEED
from utils.files import from_repository
from utils.settings import (
    Alias,
    Count,
    NonNegativeInt,
    OptionalRange,
    OptionalSize,
    Settings,
    Share,
    Within,
)

# fmt: off
DatasetName = Literal[
    "auto", "dtu", "blendedmvs", "llff", "blender", "transforms", "colmap", "sdfstudio", "nsvf",
    "neus", "nerfies", "bundler", "meshroom", "scannet", "seven_scenes", "polycam", "record3d",
    "photos", "shards", "procedural",
]
# fmt: on
ConfigT = TypeVar("ConfigT", bound="SceneConfig")


@dataclass(frozen=True)
class SceneConfig(Settings):
    """Which scenes to read, and how."""

    dataset_name: DatasetName = "auto"
    """Format of the data; auto: recognised from the files; procedural: generated worlds"""
    datadir: str = "data/dtu"
    """Folder of a scene, folder of scenes, DTU's folder, or one scan of it (data/dtu/scan2)"""
    scan: Annotated[str, Alias(("scans",))] = ""
    """Scans or scenes of the folder, separated by commas; none: those in its lists, or all"""
    image_size: OptionalSize = ()
    """Height and width that images are resized to; none: the size of the files, or that of the
    data set's protocol"""
    image_scale: Annotated[float, Within(0, 1, above=True)] = 1.0
    """Factor that shrinks images if image_size is not given; the sides must stay whole numbers"""
    near_far: OptionalRange = ()
    """Nearest and farthest depth in the unit of the files (DTU: millimetres); none: those in the
    files, else measured from matched features"""
    background: Literal["white", "black"] = "white"
    """Colour behind transparent pixels"""

    def __post_init__(self) -> None:
        """Check the bounds and the order of near and far."""
        super().__post_init__()
        if self.near_far and not self.near_far[0] < self.near_far[1]:
            near, far = self.near_far
            raise ValueError(f"near_far={near:g} {far:g}: 0 < near < far must hold")

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of ``image_size``, if it is set."""
        return (self.image_size[0], self.image_size[1]) if self.image_size else None

    @property
    def options(self) -> ReadOptions:
        """The options of the readers."""
        near_far = (self.near_far[0], self.near_far[1]) if self.near_far else None
        grey = 1.0 if self.background == "white" else 0.0
        return ReadOptions(self.size, near_far, grey, self.image_scale)

    @property
    def root(self) -> Path:
        """The folder of the data, relative to the working directory or else to the repository."""
        return from_repository(self.datadir)

    @property
    def format_name(self) -> str:
        """The chosen format, or the one recognised from the files."""
        if self.dataset_name != "auto":
            return self.dataset_name
        return recognise_format(self.root)

    def recognised(self: ConfigT) -> ConfigT:
        """Replace auto by the recognised format."""
        return replace(self, dataset_name=self.format_name)

    def scene_folders(self, split: Split = "test") -> list[Path]:
        """Return the folders of the chosen scenes, or else of a split."""
        return choose_scenes(self.format_name, self.root, self.scan, split)


@dataclass(frozen=True)
class DataConfig(SceneConfig):
    """Data of general training and how samples are drawn from them."""

    mix: tuple[str, ...] = ()
    """Several data sets in place of dataset_name and datadir, each as
    NAME:FOLDER[,weight=2][,height=512,width=640], shards:URL for shards on a server or in object
    storage, or procedural[,weight=8] for procedural worlds; weight: relative share of the
    batches"""
    min_sources: Count = 3
    """Fewest source views of a training sample; each batch draws a number from min to max"""
    max_sources: Count = 3
    """Most source views of a training sample"""
    num_source_views: Count = 3
    """Source views at validation"""
    num_nearest: Count = 10
    """Nearest neighbours of the target among which its training sources are drawn at random"""
    num_targets: Count = 1
    """Target views of a training sample"""
    scenes_per_batch: Count = 1
    """Samples in a batch, on each device"""
    batches_per_epoch: NonNegativeInt = 0
    """Batches of an epoch on each device; 0: every target view once (procedural: 1000)"""
    val_views: NonNegativeInt = 8
    """Validation targets, spread evenly over the validation scans; 0: all"""
    num_workers: NonNegativeInt = 4
    """Worker processes on each device that read data; 0: read in the training process"""
    cache_mb: NonNegativeInt = 1024
    """Memory for decoded images in MiB on each device, divided among its worker processes"""
    shard_cache_mb: NonNegativeInt = 16384
    """Disk cache in MiB for the most recently read parts of remote shards; 0: no cache"""

    def __post_init__(self) -> None:
        """Check the bounds and the combinations of settings."""
        super().__post_init__()
        if self.max_sources < self.min_sources:
            raise ValueError(
                f"max_sources={self.max_sources} must be {self.min_sources} (min_sources) or more"
            )
        needed = self.max_sources + self.num_targets - 1
        if self.num_nearest < needed:
            raise ValueError(
                f"num_nearest={self.num_nearest} must be {needed} (max_sources, num_targets) or "
                "more"
            )
        if self.mix and self.dataset_name == "procedural" and not self.share_of_worlds:
            raise ValueError(
                "dataset_name=procedural, but mix has no worlds: add procedural to mix, or use "
                "--dataset_name auto"
            )
        if self.near_far and (self.mix or self.dataset_name == "procedural"):
            raise ValueError(
                "near_far cannot be chosen for a mix or for procedural worlds; put near and far "
                "into the files of the data sets"
            )
        for text in self.mix:
            parse_source(text)

    @property
    def share_of_worlds(self) -> float:
        """Fraction of the batches that come from procedural worlds."""
        if not self.mix:
            return float(self.dataset_name == "procedural")
        parts = [parse_source(text) for text in self.mix]
        worlds = sum(part.weight for part in parts if part.name == "procedural")
        return worlds / sum(part.weight for part in parts)

    def sources(self) -> list[DataSource]:
        """Return the training data sets other than procedural worlds."""
        options = self.options
        if not self.mix:
            return [DataSource(self.format_name, self.root, 1.0, options, self.scan)]
        return [
            replace(source, options=replace(options, size=source.options.size or options.size))
            for source in map(parse_source, self.mix)
            if source.name != "procedural"
        ]


@dataclass(frozen=True)
class DataChoice(SceneConfig):
    """Target and source views of evaluation and fine-tuning."""

    targets: tuple[int, ...] = ()
    """Views to render; none: those of the data set's protocol"""
    sources: tuple[int, ...] = ()
    """Views among which the nearest to a target become its sources; none: the pool of the data
    set's protocol"""
    n_views: Count = 3
    """Source views of a target"""

    def __post_init__(self) -> None:
        """Check the bounds and that no target is repeated."""
        super().__post_init__()
        repeated = [view for view in self.targets if self.targets.count(view) > 1]
        if repeated:
            raise ValueError(f"targets names view {repeated[0]} twice")


@dataclass(frozen=True)
class HeldOutScenes(Settings):
    """Procedural worlds of a seed reserved for evaluation."""

    world_seed: int = HELD_OUT_SEED
    """Seed of the worlds; training must not use it"""
    num_worlds: Count = 16
    """Number of worlds; each is rendered with textures and, for the textureless subset, without"""
    world_views: Count = 8
    """Views of a world"""
    world_targets: Count = 2
    """First views of a world, which are the targets unless targets is set"""
    world_difficulty: Share = 0.5
    """0: short baselines and little clutter; 1: wide baselines, clutter, changing light"""

    def __post_init__(self) -> None:
        """Check the bounds and that source views remain."""
        super().__post_init__()
        if self.world_targets >= self.world_views:
            raise ValueError(
                f"world_targets={self.world_targets} of world_views={self.world_views}: no view is "
                "left as a source; lower world_targets"
            )
