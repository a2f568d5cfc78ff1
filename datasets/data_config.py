"""What a user can choose about data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from datasets.formats.registry import ReadOptions, chosen_range
from datasets.sources import DataSource, parse_source
from utils.errors import UserError


@dataclass(frozen=True)
class DataConfig:
    """Where the data lies and how samples are drawn from it."""

    dataset_name: Literal[
        "dtu", "blendedmvs", "llff", "blender", "transforms", "colmap", "photos", "procedural"
    ] = "dtu"
    """Format of the data; procedural worlds are made while training, and need no datadir."""
    datadir: str = "data/dtu"
    """Folder of the data set; for all but dtu a scene or a folder of scenes."""
    mix: tuple[str, ...] = ()
    """Several data sets in place of dataset_name and datadir, each as
    NAME:FOLDER[,weight=2][,height=512,width=640]; weight is its share of the batches."""
    image_scale: float = 1.0
    """Shrink the images of dtu by this factor on reading; sides must stay whole numbers."""
    image_size: tuple[int, ...] = ()
    """Height and width that all but dtu are resized to; none: as the images are."""
    near_far: tuple[float, ...] = ()
    """Nearest and farthest depth for transforms, colmap, blender and photos, in the scene's own
    units; none: as the files have them."""
    background: Literal["white", "black"] = "white"
    """What shows through the transparent pixels of blender."""
    min_sources: int = 3
    """Fewest source views of a training sample; each batch draws a number from min to max."""
    max_sources: int = 3
    """Most source views of a training sample."""
    num_source_views: int = 3
    """Source views at validation and test."""
    num_nearest: int = 10
    """Training sources are drawn at random among this many nearest neighbours of the target."""
    num_targets: int = 1
    """Target views of a training sample."""
    scenes_per_batch: int = 1
    """Samples in a batch, on each device."""
    batches_per_epoch: int = 0
    """Batches of an epoch on each device; 0: as many as show every target view once (procedural:
    1000)."""
    val_views: int = 8
    """Target views to validate on, spread evenly over the validation scans; 0: all."""
    num_workers: int = 4
    """Processes that read data, on each device; 0: read in the training process."""
    cache_mb: int = 1024
    """Memory for decoded images in MiB, on each device, shared evenly by its processes."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, before anything is read."""
        for name in ("min_sources", "num_source_views", "num_targets", "scenes_per_batch"):
            self._require(getattr(self, name) >= 1, name, "must be 1 or more")
        for name in ("batches_per_epoch", "val_views", "num_workers", "cache_mb"):
            self._require(getattr(self, name) >= 0, name, "must not be negative")
        in_order = self.max_sources >= self.min_sources
        self._require(in_order, "max_sources", f"must be {self.min_sources} (min_sources) or more")
        needed = self.max_sources + self.num_targets - 1
        enough = self.num_nearest >= needed
        self._require(enough, "num_nearest", f"must be {needed} (max_sources, num_targets) or more")
        self._require(0 < self.image_scale <= 1, "image_scale", "must lie in (0, 1]")
        if len(self.image_size) not in (0, 2) or any(side < 1 for side in self.image_size):
            raise UserError(f"image_size takes height and width, got {self.image_size}.")
        if self.mix and self.dataset_name == "procedural":
            raise UserError("mix takes data sets on disk; leave dataset_name = procedural out.")
        if self.mix and self.near_far:
            raise UserError(
                "near_far cannot be chosen for a mix, whose units differ; give near and far in the "
                "files of its data sets."
            )
        self.sources()

    def sources(self) -> list[DataSource]:
        """Return the data sets to train on.

        Raises:
            UserError: One is described wrongly.
        """
        grey = 1.0 if self.background == "white" else 0.0
        near_far = chosen_range(self.dataset_name, self.near_far)
        if self.mix:
            sources = [parse_source(text, grey) for text in self.mix]
        else:
            sources = [DataSource(self.dataset_name, Path(self.datadir))]
        size = (self.image_size[0], self.image_size[1]) if self.image_size else None
        return [
            replace(
                source,
                options=ReadOptions(source.options.size or size, near_far, grey),
            )
            for source in sources
        ]

    def _require(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise UserError(f"{name} {rule}, but is {getattr(self, name):g}.")
