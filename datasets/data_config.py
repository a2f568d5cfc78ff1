"""What a user can choose about data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from utils.errors import UserError


@dataclass(frozen=True)
class DataConfig:
    """Where the data lies and how samples are drawn from it."""

    dataset_name: Literal["dtu", "procedural"] = "dtu"
    """Format of the data; procedural worlds are made while training, and need no datadir."""
    datadir: str = "data/dtu"
    """Folder of the data set."""
    image_scale: float = 1.0
    """Shrink images by this factor on reading; sides must stay whole numbers."""
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

    def __post_init__(self) -> None:
        """Refuse what cannot work, before anything is read."""
        for name in ("min_sources", "num_source_views", "num_targets", "scenes_per_batch"):
            self._require(getattr(self, name) >= 1, name, "must be 1 or more")
        for name in ("batches_per_epoch", "val_views", "num_workers"):
            self._require(getattr(self, name) >= 0, name, "must not be negative")
        in_order = self.max_sources >= self.min_sources
        self._require(in_order, "max_sources", f"must be {self.min_sources} (min_sources) or more")
        needed = self.max_sources + self.num_targets - 1
        enough = self.num_nearest >= needed
        self._require(enough, "num_nearest", f"must be {needed} (max_sources, num_targets) or more")
        self._require(0 < self.image_scale <= 1, "image_scale", "must lie in (0, 1]")

    def _require(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise UserError(f"{name} {rule}, but is {getattr(self, name):g}.")
