"""Procedural scenes on their way to a training step: planned, rendered, used several times.

Workers plan, the training device renders, and several steps use each rendered batch: every
``visits`` steps a new batch comes in; the steps between go back to one of the last
``replay_batches``. What a step trains on is a function of the step alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.procedural.config import ReplayConfig
from utils.devices import generator_for

BatchT = TypeVar("BatchT")

# Apart from the streams of the training modules.
BATCH_STREAM = 2
FIRST_TRAINING_SCENE = 1_000_000
"""Held-out scenes have smaller numbers."""


def batch_of(config: ReplayConfig, step: int, seed: int) -> int:
    """Return the number of the batch that a step trains on, the same on all devices."""
    kept = config.kept_batches(step)
    if step % config.visits == 0:
        return kept[-1]
    generator = generator_for("cpu", seed, BATCH_STREAM, step)
    return kept[int(torch.randint(len(kept), (), generator=generator))]


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
        """Render the new batches, drop those of no more use, return the step's batch."""
        for number, plan in plans.items():
            self._batches[number] = render(plan)
        for number in set(self._batches).difference(self._config.kept_batches(step)):
            del self._batches[number]
        return self._batches[batch_of(self._config, step, seed)]


class SceneRequest(NamedTuple):
    """Numbered scenes: the same request always gives the same images."""

    scene_ids: Sequence[int]
    num_views: int
    size: tuple[int, int]
    difficulty: float


class StepPlans(NamedTuple):
    """What the loader brings to a training step."""

    step: int
    batches: dict[int, Any]
    """Plans of the batches that are to be rendered, by number."""


def plan_step(plan: Callable[[int], Any], item: tuple[int, tuple[int, ...]]) -> StepPlans:
    """Plan the numbered batches that a step has to render."""
    step, numbers = item
    return StepPlans(step, {number: plan(number) for number in numbers})


class _Planned(Dataset[Any]):
    def __init__(self, plan: Callable[[Any], Any]) -> None:
        self._plan = plan

    def __getitem__(self, item: Any) -> Any:  # noqa: ANN401
        return self._plan(item)


class StepSampler(Sampler[tuple[int, tuple[int, ...]]]):
    """The next steps of a run, as many as an epoch has, and the batches each has to render."""

    def __init__(
        self,
        current_step: Callable[[], int],
        steps: int,
        missing: Callable[[int, Collection[int]], tuple[int, ...]],
        held: Callable[[], Collection[int]],
    ) -> None:
        self._current_step, self._steps = current_step, steps
        self._missing, self._held = missing, held

    def __len__(self) -> int:
        """Count the steps of an epoch."""
        return self._steps

    def __iter__(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Count up from the present step."""
        first = self._current_step()
        held = set(self._held())
        for step in range(first, first + self._steps):
            missing = self._missing(step, held)
            held.update(missing)
            yield step, missing


def place_among_ranks(data: pl.LightningDataModule) -> tuple[int, int]:
    """Return rank and number of ranks; outside a trainer there is one."""
    if data.trainer is None:
        return 0, 1
    return data.trainer.global_rank, data.trainer.world_size


class PlannedData(pl.LightningDataModule):
    """Data whose batches are plans."""

    def transfer_batch_to_device(
        self,
        batch: Any,  # noqa: ANN401
        device: torch.device,
        dataloader_idx: int,
    ) -> Any:  # noqa: ANN401
        """Leave plans on the CPU."""
        return batch


def scene_loader(
    plan: Callable[[Any], Any], items: Iterable[Any], num_workers: int
) -> DataLoader[Any]:
    """Return a loader that plans each item ahead in worker processes."""
    return DataLoader(
        _Planned(plan),
        batch_size=None,
        sampler=items,
        num_workers=num_workers,
        collate_fn=_identity,
        # Each plan in waiting keeps some 20 files open.
        prefetch_factor=2 if num_workers else None,
        persistent_workers=num_workers > 0,
    )


def _identity(item: Any) -> Any:  # noqa: ANN401
    return item
