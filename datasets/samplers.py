"""Which samples make up an epoch, as a pure function of a seed and the number of the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from datasets.views import SampleRequest

_MAX_SEED = 2**63 - 1


class SceneBatchSampler(Sampler[list[SampleRequest]]):
    """Batches of requests for training: every rank its own items, all ranks equally many batches.

    An epoch runs through a permutation of the items (through several, where it is longer than the
    data). The ranks take turns along it, so that no two get the same item before all have been
    seen. The number of sources is drawn once for each step, the same on all ranks.
    """

    def __init__(
        self,
        num_items: int,
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
            num_items: Length of the dataset.
            scenes_per_batch: Requests in a batch of one rank.
            seed: Seed of the run.
            rank: Which of the ranks this is.
            world_size: How many ranks there are.
            sources_range: Fewest and most sources.
            batches_per_epoch: Of one rank; 0: as many whole ones as the items give, one at least.
        """
        super().__init__()
        if num_items < 1 or not 0 <= rank < world_size:
            raise ValueError(f"num_items {num_items}, rank {rank}, world_size {world_size}")
        self.seed = seed
        self._num_items = num_items
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
        return iter(self._draw_epoch(self._epoch)[self._first_batch :])

    def _draw_epoch(self, epoch: int) -> Sequence[list[SampleRequest]]:
        random = np.random.default_rng([self.seed, epoch])
        shape = (self._num_batches, self._world_size, self._scenes_per_batch)
        count = int(np.prod(shape))
        passes = [random.permutation(self._num_items) for _ in range(-(-count // self._num_items))]
        indices = np.concatenate(passes)[:count].reshape(shape)[:, self._rank]
        seeds = random.integers(_MAX_SEED, size=shape)[:, self._rank]
        fewest, most = self._sources_range
        num_sources = random.integers(fewest, most + 1, size=self._num_batches)
        return [
            [
                SampleRequest(int(indices[batch, place]), int(seeds[batch, place]), int(sources))
                for place in range(self._scenes_per_batch)
            ]
            for batch, sources in enumerate(num_sources)
        ]
