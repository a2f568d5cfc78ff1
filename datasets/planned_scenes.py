"""Procedural scenes on their way to the trainer: planned by workers, rendered where they are used.

A plan is a small thing on the CPU; rendered images never travel between processes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

FIRST_TRAINING_SCENE = 1_000_000
"""Held-out scenes have the numbers below this one, training scenes those above."""


class SceneRequest(NamedTuple):
    """Numbered scenes, seen in some way: the same request always gives the same images."""

    scene_ids: Sequence[int]
    num_views: int
    size: tuple[int, int]
    """Height and width."""
    difficulty: float


class PreparedScenes(Dataset[Any]):
    """Item i is the plan of request i."""

    def __init__(
        self, requests: Sequence[SceneRequest], prepare: Callable[[SceneRequest], Any]
    ) -> None:
        self._requests = requests
        self._prepare = prepare

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401
        """Plan the scenes of a request."""
        return self._prepare(self._requests[index])


class StepPlans(NamedTuple):
    """What the loader brings to a training step."""

    step: int
    batches: dict[int, Any]
    """Plans of the batches that are to be rendered, by number."""


class PreparedBatches(Dataset[StepPlans]):
    """Item (step, batch numbers) are the plans of these batches."""

    def __init__(
        self, request: Callable[[int], SceneRequest], prepare: Callable[[SceneRequest], Any]
    ) -> None:
        self._request = request
        self._prepare = prepare

    def __getitem__(self, item: tuple[int, tuple[int, ...]]) -> StepPlans:
        """Plan the scenes of the numbered batches."""
        step, numbers = item
        return StepPlans(step, {n: self._prepare(self._request(n)) for n in numbers})


class StepSampler(Sampler[tuple[int, tuple[int, ...]]]):
    """The next steps of a run, as many as an epoch has, and the batches each has to render.

    It starts at the run's present step with what the trainer lacks of the batches in use, so that
    a resumed run goes on where it stopped.
    """

    def __init__(
        self,
        current_step: Callable[[], int],
        steps: int,
        missing: Callable[[int, Collection[int]], tuple[int, ...]],
        held: Callable[[], Collection[int]],
    ) -> None:
        self._current_step = current_step
        self._steps = steps
        self._missing = missing
        self._held = held

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


class PlannedData(pl.LightningDataModule):
    """Data whose batches are plans."""

    def transfer_batch_to_device(
        self,
        batch: Any,  # noqa: ANN401
        device: torch.device,
        dataloader_idx: int,
    ) -> Any:  # noqa: ANN401
        """Leave plans to the renderer, which knows what to move."""
        return batch


def scene_loader(scenes: Dataset[Any], items: Iterable[Any], num_workers: int) -> DataLoader[Any]:
    """Return a loader that plans ahead in worker processes."""
    return DataLoader(
        scenes,
        batch_size=None,
        sampler=items,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        # Each plan in waiting keeps some 20 files open.
        prefetch_factor=2 if num_workers else None,
        persistent_workers=num_workers > 0,
    )


def _as_it_is(item: Any) -> Any:  # noqa: ANN401
    return item
