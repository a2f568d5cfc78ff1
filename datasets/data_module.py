"""Lightning data module of data sets on disk."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import pytorch_lightning as pl

from datasets.config import DataConfig
from datasets.data_fingerprint import check_unchanged, fingerprint_data
from datasets.formats.splits import Split
from datasets.loading import (
    ResumableDataLoader,
    SampleLoader,
    check_shared_memory,
    rank_and_world_size,
)
from datasets.sampling import SceneBatchSampler
from datasets.scene_dataset import MixedDataset, PixelCache, SamplingRules, SceneDataset
from datasets.scene_index import INDEX_NAME
from datasets.shards.remote_folder import prepare_folder
from datasets.shards.writer import SPLIT_LISTS
from datasets.views import SampleRequest

_BYTES_PER_PIXEL = 17
"""Of a view in a batch: colour and depth in single precision, and the mask."""


class SceneDataModule(pl.LightningDataModule):
    """Training and validation loaders; the trainer needs ``use_distributed_sampler=False``."""

    def __init__(self, config: DataConfig, seed: int = 0) -> None:
        super().__init__()
        self._config = config
        self._seed = seed
        self._train_loader: ResumableDataLoader | None = None
        self._loader_state: dict[str, int] | None = None

    def setup(self, stage: str = "fit") -> None:
        """List and check the data. Entry scripts call this first, to fail early."""
        _ = self.fingerprint
        for part in self._parts:
            part.check_valid_pixels()
        config, (height, width) = self._config, self.train_dataset.largest_size
        views = config.scenes_per_batch * (config.max_sources + config.num_targets)
        check_shared_memory(config.num_workers, views * height * width * _BYTES_PER_PIXEL)

    @cached_property
    def train_dataset(self) -> MixedDataset:
        """The training split."""
        config = self._config
        rules = SamplingRules(config.num_nearest, config.num_targets, config.max_sources)
        return build_dataset(config, "train", rules)

    @cached_property
    def val_dataset(self) -> MixedDataset:
        """The validation split."""
        rules = SamplingRules(self._config.num_nearest, 1, self._config.num_source_views)
        return build_dataset(self._config, "val", rules)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Fingerprint of the data for checkpoints."""
        return fingerprint_data(self._parts)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch on this rank."""
        return len(self._train_sampler())

    @property
    def _parts(self) -> list[SceneDataset]:
        return [*self.train_dataset.parts, *self.val_dataset.parts]

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the loader of this rank's share of the training data."""
        loader = ResumableDataLoader(
            self.train_dataset, self._train_sampler(), self._config.num_workers
        )
        if self._loader_state is not None:
            loader.load_state_dict(self._loader_state)
            self._loader_state = None
        self._train_loader = loader
        return loader

    def val_dataloader(self) -> SampleLoader:
        """Return the loader of this rank's share of the validation views, one at a time."""
        rank, world_size = rank_and_world_size(self)
        return SampleLoader(
            self.val_dataset,
            sampler=self._val_requests(world_size)[rank::world_size],
            num_workers=min(self._config.num_workers, 2),
        )

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return the position in the training data and their fingerprint, for the checkpoint."""
        if self._train_loader is None:
            return {}
        return {"train": self._train_loader.state_dict(), "data": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, dict[str, Any]]) -> None:
        """Check that the data are unchanged, and let the next training loader continue in them.

        Lightning does not restore loaders from a checkpoint taken at the end of an epoch.
        """
        self._loader_state = state_dict.get("train")
        # Checkpoints of early versions have no fingerprint.
        if "data" in state_dict:
            check_unchanged(state_dict["data"], self._parts)
            self.fingerprint = state_dict["data"]

    def _train_sampler(self) -> SceneBatchSampler:
        config = self._config
        rank, world_size = rank_and_world_size(self)
        return SceneBatchSampler(
            self.train_dataset.groups,
            scenes_per_batch=config.scenes_per_batch,
            seed=self._seed,
            rank=rank,
            world_size=world_size,
            sources_range=(config.min_sources, config.max_sources),
            batches_per_epoch=config.batches_per_epoch,
        )

    def _val_requests(self, world_size: int) -> list[SampleRequest]:
        """Spread the views evenly, and repeat the first until all ranks have equally many."""
        total = len(self.val_dataset)
        count = min(self._config.val_views or total, total)
        indices = [number * total // count for number in range(count)]
        padding = [indices[number % count] for number in range(-count % world_size)]
        sources = self._config.num_source_views
        return [SampleRequest(index, num_sources=sources) for index in indices + padding]


def build_dataset(config: DataConfig, split: Split, rules: SamplingRules) -> MixedDataset:
    """List the scenes of a split in all data sets."""
    sources = config.sources()
    for source in sources:
        if source.url:
            prepare_folder(source.url, config.shard_cache_mb, INDEX_NAME, SPLIT_LISTS)
    cache_bytes = (config.cache_mb << 20) // max(1, config.num_workers)
    # Validation reads each of its few images once an epoch.
    cache = PixelCache(cache_bytes if split == "train" else 0)
    parts = [SceneDataset(source, split, rules, cache) for source in sources]
    return MixedDataset(parts, [source.weight for source in sources])
