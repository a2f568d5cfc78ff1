"""Training several times on each rendered batch: planning and rendering cost more than a step.

What a step trains on stays a function of the step alone. Every ``visits`` steps a new batch comes
in; the steps between go back to one of the last ``replay_batches``. Their views come in another
order each time, so that another camera is the frame of reference, and in other colours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from datasets.views import Views
from utils.cameras import Cameras
from utils.seeding import generator_for

# Apart from the streams of shapes, weights and colours.
BATCH_STREAM = 2
ORDER_STREAM = 3


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


class RenderedBatches:
    """The batches in use, on the training device."""

    def __init__(self, config: ReplayConfig) -> None:
        self._config = config
        self._views: dict[int, Views] = {}

    @property
    def numbers(self) -> Collection[int]:
        """The batches that are held."""
        return self._views.keys()

    def take(
        self, step: int, seed: int, plans: Mapping[int, Any], render: Callable[[Any], Views]
    ) -> Views:
        """Render what has come in, forget what has had its time, return the step's batch."""
        for number, plan in plans.items():
            self._views[number] = render(plan)
        for number in set(self._views).difference(self._config.kept_batches(step)):
            del self._views[number]
        return self._views[self._config.batch_of(step, seed)]


def reordered(views: Views, generator: torch.Generator) -> Views:
    """Draw an order of the views, one for all scenes of a batch with axes (scene, view)."""
    count = views.images.shape[1]
    order = torch.randperm(count, generator=generator, device=generator.device)
    cameras = Cameras(views.cameras.intrinsics[:, order], views.cameras.c2w[:, order])
    return Views(views.images[:, order], cameras, views.depths[:, order], views.masks[:, order])
