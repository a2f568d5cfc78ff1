"""The data of a training run, for Lightning: what it sees in which order, and where to resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pytorch_lightning as pl
from jaxtyping import Int64
from torch.utils.data import Dataset, Sampler

from datasets.config import DataConfig
from datasets.data_record import check_unchanged, record_data
from datasets.formats.splits import Split
from datasets.loading import SampleLoader, check_shared_memory
from datasets.remote_folder import prepare_folder
from datasets.replay import place_among_ranks
from datasets.scene_dataset import ItemGroup, MixedDataset, PixelCache, SamplingRules, SceneDataset
from datasets.scene_index import INDEX_NAME
from datasets.shard_writer import SPLIT_LISTS
from datasets.views import Sample, SampleRequest
from utils.errors import UserError

_MAX_SEED = 2**63 - 1
BYTES_PER_PIXEL = 17
"""Of a view in a batch: colour and depth in single precision, and the mask."""


class SceneBatchSampler(Sampler[list[SampleRequest]]):
    """Batches of requests for training: every rank its own items, all ranks equally many batches.

    An epoch runs through permutations of the items. The ranks take turns along them, so that no two
    get the same item before all have been seen. The number of sources of a step is the same on all
    ranks, as is its group, which is drawn by weight; each group has a permutation of its own.
    """

    def __init__(
        self,
        groups: Sequence[ItemGroup],
        *,
        scenes_per_batch: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        sources_range: tuple[int, int] = (3, 3),
        batches_per_epoch: int = 0,
    ) -> None:
        """Set up the first epoch, of groups of items that can be in one batch.

        ``batches_per_epoch`` are those of one rank; 0: as many whole ones as the items give.
        """
        super().__init__()
        self._groups = tuple(groups)
        num_items = sum(group.count for group in self._groups)
        if num_items < 1 or not 0 <= rank < world_size:
            raise ValueError(f"{num_items} items, rank {rank}, world_size {world_size}")
        self.seed = seed
        self._scenes_per_batch = scenes_per_batch
        self._rank, self._world_size = rank, world_size
        self._sources_range = sources_range
        step_size = scenes_per_batch * world_size
        self._num_batches = batches_per_epoch or max(1, num_items // step_size)
        self._epoch, self._first_batch = 0, 0

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose what the next iteration gives: this epoch, from ``first_batch`` on."""
        self._epoch, self._first_batch = epoch, first_batch

    def __len__(self) -> int:
        """Count the batches of a whole epoch, wherever the next iteration begins."""
        return self._num_batches

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        """Give the batches of the epoch that ``set_epoch`` chose."""
        return self._draw_epoch(self._epoch, self._first_batch)

    def _draw_epoch(self, epoch: int, first_batch: int) -> Iterator[list[SampleRequest]]:
        random = np.random.default_rng([self.seed, epoch])
        shape = (self._num_batches, self._world_size, self._scenes_per_batch)
        indices = self._draw_items(random, shape)[:, self._rank]
        seeds = random.integers(_MAX_SEED, size=shape)[:, self._rank]
        fewest, most = self._sources_range
        num_sources = random.integers(fewest, most + 1, size=self._num_batches)
        for batch in range(first_batch, self._num_batches):
            yield [
                SampleRequest(int(index), int(seed), int(num_sources[batch]))
                for index, seed in zip(indices[batch], seeds[batch], strict=True)
            ]

    def _draw_items(
        self, random: np.random.Generator, shape: tuple[int, int, int]
    ) -> Int64[np.ndarray, "batch rank place"]:
        weights = np.array([group.weight for group in self._groups])
        chosen = np.zeros(shape[0], np.int64)
        if len(self._groups) > 1:
            chosen = random.choice(len(self._groups), size=shape[0], p=weights / weights.sum())
        indices = np.empty(shape, np.int64)
        for number, group in enumerate(self._groups):
            batches = chosen == number
            count = int(batches.sum()) * shape[1] * shape[2]
            passes = [random.permutation(group.count) for _ in range(-(-count // group.count))]
            drawn = np.concatenate([np.empty(0, np.int64), *passes])[:count] + group.first
            indices[batches] = drawn.reshape(-1, *shape[1:])
        return indices


class ResumableDataLoader(SampleLoader):
    """A training loader that knows its place, and goes on from it after ``load_state_dict``.

    Lightning does not tell a loader which epoch it is, and asks for more iterators than it uses. So
    the loader counts epochs itself, and an iterator decides where it begins when its first batch is
    asked for. Batches that workers have prepared in advance are prepared again after a resume.
    """

    def __init__(
        self,
        dataset: Dataset[Sample],
        batch_sampler: SceneBatchSampler,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(dataset, batch_sampler=batch_sampler, **options)
        self._scene_sampler = batch_sampler
        self._epoch, self._batches_given = 0, 0
        self._continues = True

    def __iter__(self) -> Iterator[Sample]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Give the rest of the epoch after loading a state, otherwise the next epoch."""
        if not self._continues or self._batches_given >= len(self):
            self._epoch, self._batches_given = self._epoch + 1, 0
        self._continues = False
        self._scene_sampler.set_epoch(self._epoch, self._batches_given)
        for batch in super().__iter__():
            self._batches_given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the place in the data, the same on every rank."""
        return {
            "epoch": self._epoch,
            "batches_given": self._batches_given,
            "batches_per_epoch": len(self),
            "seed": self._scene_sampler.seed,
        }

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go to a place; the next iterator begins there."""
        here = self.state_dict()
        for name in ("batches_per_epoch", "seed"):
            if state_dict.get(name) != here[name]:
                raise UserError(
                    f"The checkpoint's place in the data has {name} {state_dict.get(name)}, but "
                    f"this run has {here[name]}. Resume with the same data, seed, batch size and "
                    "number of devices, or start from the weights with --init_ckpt."
                )
        self._epoch, self._batches_given = state_dict["epoch"], state_dict["batches_given"]
        self._continues = True


class SceneDataModule(pl.LightningDataModule):
    """Training and validation loaders; the trainer needs ``use_distributed_sampler=False``."""

    def __init__(self, config: DataConfig, seed: int = 0) -> None:
        super().__init__()
        self._config = config
        self._seed = seed
        self._train_loader: ResumableDataLoader | None = None
        self._place_in_data: dict[str, int] | None = None

    def setup(self, stage: str = "fit") -> None:
        """List the data; entry scripts call this first, to fail before any long work."""
        _ = self.data_record
        for part in self._parts:
            part.check_counted()
        config, (height, width) = self._config, self.train_dataset.largest_size
        views = config.scenes_per_batch * (config.max_sources + config.num_targets)
        check_shared_memory(config.num_workers, views * height * width * BYTES_PER_PIXEL)

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

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the loader of this rank's part of the training data."""
        loader = ResumableDataLoader(
            self.train_dataset, self.train_sampler(), num_workers=self._config.num_workers
        )
        if self._place_in_data is not None:
            loader.load_state_dict(self._place_in_data)
            self._place_in_data = None
        self._train_loader = loader
        return loader

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch on this rank; asking does not touch the place in the data."""
        return len(self.train_sampler())

    @cached_property
    def data_record(self) -> dict[str, Any]:
        """What checkpoints say of the data."""
        return record_data(self._parts)

    @property
    def _parts(self) -> list[SceneDataset]:
        return [*self.train_dataset.parts, *self.val_dataset.parts]

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return the place in the training data and what these are, for the checkpoint."""
        if self._train_loader is None:
            return {}
        return {"train": self._train_loader.state_dict(), "data": self.data_record}

    def load_state_dict(self, state_dict: dict[str, dict[str, Any]]) -> None:
        """Let the next training loader begin where the checkpoint was taken, on the same data.

        Lightning does not restore loaders from a checkpoint taken at the end of an epoch.
        """
        self._place_in_data = state_dict.get("train")
        # Checkpoints of early versions have no record.
        if "data" in state_dict:
            check_unchanged(state_dict["data"], self._parts)
            self.data_record = state_dict["data"]

    def val_dataloader(self) -> SampleLoader:
        """Return the loader of this rank's part of the validation views, one at a time."""
        rank, world_size = place_among_ranks(self)
        return SampleLoader(
            self.val_dataset,
            sampler=self._val_requests()[rank::world_size],
            num_workers=min(self._config.num_workers, 2),
        )

    def train_sampler(self) -> SceneBatchSampler:
        """Return the batches of this rank."""
        config = self._config
        rank, world_size = place_among_ranks(self)
        return SceneBatchSampler(
            self.train_dataset.groups,
            scenes_per_batch=config.scenes_per_batch,
            seed=self._seed,
            rank=rank,
            world_size=world_size,
            sources_range=(config.min_sources, config.max_sources),
            batches_per_epoch=config.batches_per_epoch,
        )

    def _val_requests(self) -> list[SampleRequest]:
        """Spread the views evenly, and repeat the first until all ranks have equally many."""
        total = len(self.val_dataset)
        count = min(self._config.val_views or total, total)
        indices = [number * total // count for number in range(count)]
        missing = -count % place_among_ranks(self)[1]
        repeated = [indices[number % count] for number in range(missing)]
        sources = self._config.num_source_views
        return [SampleRequest(index, num_sources=sources) for index in indices + repeated]


def build_dataset(config: DataConfig, split: Split, rules: SamplingRules) -> MixedDataset:
    """List the scenes of all sources of a split."""
    sources = config.sources()
    for source in sources:
        if source.url:
            prepare_folder(source.url, config.shard_cache_mb, INDEX_NAME, SPLIT_LISTS)
    share = (config.cache_mb << 20) // max(1, config.num_workers)
    # Validation reads each of its few images once an epoch.
    cache = PixelCache(share if split == "train" else 0)
    parts = [SceneDataset(source, split, rules, cache) for source in sources]
    return MixedDataset(parts, [source.weight for source in sources])
