"""Which samples make up an epoch, as a pure function of a seed and the number of the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64
from torch.utils.data import Sampler

from datasets.sampling_rules import ItemGroup
from datasets.views import SampleRequest

_MAX_SEED = 2**63 - 1


class SceneBatchSampler(Sampler[list[SampleRequest]]):
    """Batches of requests for training: every rank its own items, all ranks equally many batches.

    An epoch runs through a permutation of the items (through several, where it is longer than the
    data). The ranks take turns along it, so that no two get the same item before all have been
    seen. The number of sources is drawn once for each step, the same on all ranks. Where items
    fall into groups, as those of mixed data sets do, the group of each step is drawn by weight,
    the same on all ranks, and each group has a permutation of its own.
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
            items: Length of the dataset; or, where not all items can be in one batch, the runs
                of those that can.
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
        """Draw the group of each batch, and go through each group by permutations."""
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
