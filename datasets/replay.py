"""Training several times on each rendered batch: planning and rendering cost more than a step.

What a step trains on stays a function of the step alone. Every ``visits`` steps a new batch comes
in; the steps between go back to one of the last ``replay_batches``, and look at it otherwise: from
another camera, in other colours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from utils.seeding import generator_for

BatchT = TypeVar("BatchT")

# Apart from the streams of whoever trains.
BATCH_STREAM = 2


@dataclass(frozen=True)
class ReplayConfig:
    """How long rendered scenes stay in use."""

    visits: int = 4
    """steps for each rendered batch of scenes"""
    replay_batches: int = 16
    """rendered batches that are kept to go back to"""

    def __post_init__(self) -> None:
        """Refuse a supply without scenes."""
        if self.visits < 1 or self.replay_batches < 1:
            raise ValueError("visits and replay_batches must be positive")

    def newest_batch(self, step: int) -> int:
        """Return the number of the last batch that has come in by a step."""
        return step // self.visits

    def kept_batches(self, step: int) -> range:
        """Return the numbers of the batches that a step or a later one may go back to."""
        newest = self.newest_batch(step)
        return range(max(0, newest - self.replay_batches + 1), newest + 1)

    def batch_of(self, step: int, seed: int) -> int:
        """Return the number of the batch that a step trains on, the same on all devices."""
        if step % self.visits == 0:
            return self.newest_batch(step)
        kept = self.kept_batches(step)
        generator = generator_for("cpu", seed, BATCH_STREAM, step)
        return kept[int(torch.randint(len(kept), (), generator=generator))]

    def missing_batches(self, step: int, held: Collection[int]) -> tuple[int, ...]:
        """Return which batches have to be rendered at a step, given those that are held."""
        return tuple(number for number in self.kept_batches(step) if number not in held)


class RenderedBatches(Generic[BatchT]):
    """The batches in use, on the training device."""

    def __init__(self, config: ReplayConfig) -> None:
        self._config = config
        self._batches: dict[int, BatchT] = {}

    @property
    def numbers(self) -> Collection[int]:
        """The batches that are held."""
        return self._batches.keys()

    def take(
        self, step: int, seed: int, plans: Mapping[int, Any], render: Callable[[Any], BatchT]
    ) -> BatchT:
        """Render what has come in, forget what has had its time, return the step's batch."""
        for number, plan in plans.items():
            self._batches[number] = render(plan)
        for number in set(self._batches).difference(self._config.kept_batches(step)):
            del self._batches[number]
        return self._batches[self._config.batch_of(step, seed)]
