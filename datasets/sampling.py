"""The order of general training: batches of sample requests, a function of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from torch.utils.data import Sampler

from datasets.views import SampleRequest

_MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class ItemGroup:
    """Consecutive items of a data set whose samples can share a batch."""

    first: int
    count: int
    weight: float = 1.0
    """Share of the batches, relative to the other groups."""


class SceneBatchSampler(Sampler[list[SampleRequest]]):
    """Batches of requests for training: each rank has its own items, all have equally many batches.

    An epoch runs through permutations of the items. The ranks take turns along them, so that no two
    ranks get the same item before all items have been used. All ranks draw the same group, by
    weight, and the same number of sources in a step; each group has its own permutations.
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
        """Start at the first epoch.

        ``batches_per_epoch`` counts the batches of one rank; 0: as many as the items fill.
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
        """Set the epoch and the first batch of the next iterator."""
        self._epoch, self._first_batch = epoch, first_batch

    def __len__(self) -> int:
        """Count the batches of a whole epoch, regardless of ``first_batch``."""
        return self._num_batches

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        """Yield the batches of the epoch chosen by ``set_epoch``."""
        return self._draw_epoch(self._epoch, self._first_batch)

    def _draw_epoch(self, epoch: int, first_batch: int) -> Iterator[list[SampleRequest]]:
        rng = np.random.default_rng([self.seed, epoch])
        shape = (self._num_batches, self._world_size, self._scenes_per_batch)
        indices = self._draw_items(rng, shape)[:, self._rank]
        seeds = rng.integers(_MAX_SEED, size=shape)[:, self._rank]
        fewest, most = self._sources_range
        num_sources = rng.integers(fewest, most + 1, size=self._num_batches)
        for batch in range(first_batch, self._num_batches):
            yield [
                SampleRequest(int(index), int(seed), int(num_sources[batch]))
                for index, seed in zip(indices[batch], seeds[batch], strict=True)
            ]

    def _draw_items(
        self, rng: np.random.Generator, shape: tuple[int, int, int]
    ) -> Int64[np.ndarray, "batch rank scene"]:
        weights = np.array([group.weight for group in self._groups])
        group_of_batch = np.zeros(shape[0], np.int64)
        if len(self._groups) > 1:
            group_of_batch = rng.choice(len(weights), size=shape[0], p=weights / weights.sum())
        indices = np.empty(shape, np.int64)
        for number, group in enumerate(self._groups):
            batches = group_of_batch == number
            count = int(batches.sum()) * shape[1] * shape[2]
            passes = [rng.permutation(group.count) for _ in range(-(-count // group.count))]
            drawn = np.concatenate([np.empty(0, np.int64), *passes])[:count] + group.first
            indices[batches] = drawn.reshape(-1, *shape[1:])
        return indices
