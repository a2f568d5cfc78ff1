"""The data of a training run, for Lightning."""

from __future__ import annotations

import pytorch_lightning as pl

from datasets.config import DataConfig
from datasets.formats.registry import Split
from datasets.replay import place_among_ranks
from datasets.sampling import ResumableDataLoader, SampleLoader, SamplingRules, SceneBatchSampler
from datasets.scene_dataset import MixedDataset, PixelCache, SceneDataset
from datasets.views import SampleRequest


class SceneDataModule(pl.LightningDataModule):
    """Training and validation loaders; the trainer needs ``use_distributed_sampler=False``."""

    def __init__(self, config: DataConfig, seed: int = 0) -> None:
        """Keep the settings; nothing is read before ``setup``."""
        super().__init__()
        self._config = config
        self._seed = seed
        self._train: MixedDataset | None = None
        self._val: MixedDataset | None = None
        self._train_loader: ResumableDataLoader | None = None
        self._place_in_data: dict[str, int] | None = None

    def setup(self, stage: str = "fit") -> None:
        """List the data; entry scripts call this first, to fail before any long work."""
        if self._train is None or self._val is None:
            config = self._config
            rules = SamplingRules(config.num_nearest, config.num_targets, config.max_sources)
            self._train = build_dataset(config, "train", rules)
            held_out = SamplingRules(config.num_nearest, 1, config.num_source_views)
            self._val = build_dataset(config, "val", held_out)

    @property
    def train_dataset(self) -> MixedDataset:
        """The training split, after ``setup``."""
        if self._train is None:
            raise RuntimeError("call setup() first")
        return self._train

    @property
    def val_dataset(self) -> MixedDataset:
        """The validation split, after ``setup``."""
        if self._val is None:
            raise RuntimeError("call setup() first")
        return self._val

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the loader of this rank's part of the training data."""
        loader = ResumableDataLoader(
            self.train_dataset, self._train_sampler(), num_workers=self._config.num_workers
        )
        if self._place_in_data is not None:
            loader.load_state_dict(self._place_in_data)
            self._place_in_data = None
        self._train_loader = loader
        return loader

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch on this rank; asking does not touch the place in the data."""
        return len(self._train_sampler())

    def state_dict(self) -> dict[str, dict[str, int]]:
        """Return the place in the training data, for the checkpoint."""
        return {} if self._train_loader is None else {"train": self._train_loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, dict[str, int]]) -> None:
        """Let the next training loader begin where the checkpoint was taken.

        Lightning does not restore loaders from a checkpoint taken at the end of an epoch.
        """
        self._place_in_data = state_dict.get("train")

    def val_dataloader(self) -> SampleLoader:
        """Return the loader of this rank's part of the validation views, one at a time."""
        rank, world_size = place_among_ranks(self)
        return SampleLoader(
            self.val_dataset,
            sampler=self._val_requests()[rank::world_size],
            num_workers=min(self._config.num_workers, 2),
        )

    def _train_sampler(self) -> SceneBatchSampler:
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
    share = (config.cache_mb << 20) // max(1, config.num_workers)
    # Validation reads each of its few images once an epoch.
    cache = PixelCache(share if split == "train" else 0)
    parts = [SceneDataset(source, split, rules, cache) for source in sources]
    return MixedDataset(parts, [source.weight for source in sources])
