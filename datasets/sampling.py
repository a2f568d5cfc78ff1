"""What a training sees in which order, and a place in the data to resume from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.views import Sample, SampleRequest, collate_samples
from utils.errors import UserError

_MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class SamplingRules:
    """How samples are drawn."""

    num_nearest: int
    """Neighbours of a target that its training sources are drawn among."""
    num_targets: int
    """Targets of a training sample."""
    max_sources: int
    """No request asks for more sources."""


@dataclass(frozen=True)
class ItemGroup:
    """A run of items whose samples can be in one batch."""

    first: int
    count: int
    weight: float = 1.0
    """Share of the batches that come from it, relative to the other groups."""


class SceneBatchSampler(Sampler[list[SampleRequest]]):
    """Batches of requests for training: every rank its own items, all ranks equally many batches.

    An epoch runs through permutations of the items. The ranks take turns along them, so that no two
    get the same item before all have been seen. The number of sources of a step is the same on all
    ranks, as is its group, which is drawn by weight; each group has a permutation of its own.
    """

    def __init__(
        self,
        items: int | Sequence[ItemGroup],
        *,
        scenes_per_batch: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        sources_range: tuple[int, int] = (3, 3),
        batches_per_epoch: int = 0,
    ) -> None:
        """Set up the first epoch.

        Args:
            items: Length of the dataset, or the groups of items that can be in one batch.
            scenes_per_batch: Requests in a batch of one rank.
            seed: Seed of the run.
            rank: Which of the ranks this is.
            world_size: How many ranks there are.
            sources_range: Fewest and most sources.
            batches_per_epoch: Of one rank; 0: as many whole ones as the items give, one at least.
        """
        super().__init__()
        self._groups = (ItemGroup(0, items),) if isinstance(items, int) else tuple(items)
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


class SampleLoader(DataLoader[Sample]):
    """A loader of collated samples that hands a worker's ``UserError`` on as it was."""

    def __init__(self, dataset: Dataset[Sample], **options: Any) -> None:  # noqa: ANN401
        """Take the options of ``DataLoader``; workers stay alive between epochs."""
        persistent = options.get("num_workers", 0) > 0
        super().__init__(
            dataset, collate_fn=collate_samples, persistent_workers=persistent, **options
        )

    def __iter__(self) -> Iterator[Sample]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Give collated samples; workers start with the first of them, not before."""
        try:
            yield from super().__iter__()
        except UserError as error:
            # Workers wrap the message into their traceback; only the message is for the user.
            raise UserError(str(error).rpartition(f"{UserError.__name__}: ")[2].strip()) from error


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
        """Take further options of ``DataLoader``."""
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
