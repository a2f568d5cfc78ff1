"""Procedural scenes in training: planned by workers, rendered on the device, used several times.

Every ``visits`` steps a new batch is rendered; the steps in between repeat one of the last
``replay_batches`` batches. The batch of a step is a function of the step alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from datasets.loading import worker_options
from datasets.procedural.config import ReplayConfig
from datasets.procedural.generator import ProceduralGenerator
from datasets.procedural.worlds.planning import PreparedBatch
from datasets.views import Sample
from utils.devices import generator_for

# Distinct from the random streams of the training modules.
_BATCH_STREAM = 2
FIRST_TRAINING_SCENE = 1_000_000
"""Held-out scenes have smaller numbers."""


def batch_of(config: ReplayConfig, step: int, seed: int) -> int:
    """Return the number of the batch that a step trains on, the same on all devices."""
    kept = config.kept_batches(step)
    if step % config.visits == 0:
        return kept[-1]
    generator = generator_for("cpu", seed, _BATCH_STREAM, step)
    return kept[int(torch.randint(len(kept), (), generator=generator))]


class SceneRequest(NamedTuple):
    """Numbered scenes; equal requests give equal images."""

    scene_ids: Sequence[int]
    num_views: int
    size: tuple[int, int]
    difficulty: float


class HeldOutPlan(NamedTuple):
    """Input of a validation step."""

    scene_ids: Sequence[int]
    plan: PreparedBatch


class StepPlans(NamedTuple):
    """Input of a training step."""

    step: int
    batches: Mapping[int, Any]
    """Plans of the batches to render, by number; the sampler has their requests here."""


class PlannedScenes(Dataset[StepPlans | HeldOutPlan]):
    """Plans for the requests of a training step, or for one request of held-out scenes."""

    def __init__(self, prepare: Callable[..., PreparedBatch]) -> None:
        self._prepare = prepare

    def __getitem__(self, item: StepPlans | SceneRequest) -> StepPlans | HeldOutPlan:
        """Plan the scenes of an item."""
        if isinstance(item, SceneRequest):
            return HeldOutPlan(item.scene_ids, self._prepare(*item))
        plans = {number: self._prepare(*request) for number, request in item.batches.items()}
        return StepPlans(item.step, plans)


@dataclass(frozen=True)
class StepSampler:
    """The next steps of a run, as many as an epoch has, with the requests to render."""

    steps: int
    next_steps: Callable[[int], Iterator[StepPlans]]

    def __len__(self) -> int:
        """Count the steps of an epoch."""
        return self.steps

    def __iter__(self) -> Iterator[StepPlans]:
        """Yield the steps from the current one."""
        return self.next_steps(self.steps)


class PlannedData(pl.LightningDataModule):
    """Training and held-out scenes that workers plan and the training device renders."""

    def __init__(
        self,
        planner: ProceduralGenerator,
        replay: ReplayConfig,
        seed: int,
        steps_per_epoch: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        self._planner, self._replay, self._seed = planner, replay, seed
        self.batches_per_epoch, self._num_workers = steps_per_epoch, num_workers
        self._rendered: dict[int, Any] = {}
        """Rendered batches that later steps may use, by number."""
        self._renderer: ProceduralGenerator | None = None

    def request(self, batch: int) -> SceneRequest:
        """Return the scenes of a training batch on this rank."""
        raise NotImplementedError

    def held_out_requests(self) -> Sequence[SceneRequest]:
        """Return this rank's share of the held-out scenes."""
        raise NotImplementedError

    def steps_taken(self) -> int:
        """Count the steps of the run so far that trained on these scenes."""
        assert self.trainer is not None
        return self.trainer.global_step

    def train_dataloader(self) -> Any:  # noqa: ANN401
        """Return the loader of the run's next steps."""
        sampler = StepSampler(self.batches_per_epoch, self._next_steps)
        return self._loader(sampler, self._num_workers)

    def val_dataloader(self) -> Any:  # noqa: ANN401
        """Return the loader of the held-out scenes, one request at a time."""
        return self._loader(self.held_out_requests(), min(1, self._num_workers))

    def transfer_batch_to_device(
        self,
        batch: Any,  # noqa: ANN401
        device: torch.device,
        dataloader_idx: int,
    ) -> Any:  # noqa: ANN401
        """Move samples; plans stay on the CPU until they are rendered."""
        return batch.to(device) if isinstance(batch, Sample) else batch

    def on_after_batch_transfer(self, batch: StepPlans | HeldOutPlan, dataloader_idx: int) -> Any:  # noqa: ANN401
        """Render plans, and return the batch of the step."""
        assert self.trainer is not None
        if self._renderer is None:
            self._renderer = self._planner.on(self.trainer.strategy.root_device)
        if isinstance(batch, HeldOutPlan):
            return self._renderer.render(batch.plan)
        assert batch.step == self.steps_taken(), "the loader is at another step than the trainer"
        for number, plan in batch.batches.items():
            self._rendered[number] = self._renderer.render(plan)
        for number in set(self._rendered).difference(self._replay.kept_batches(batch.step)):
            del self._rendered[number]
        return self._rendered[batch_of(self._replay, batch.step, self._seed)]

    def _next_steps(self, count: int) -> Iterator[StepPlans]:
        first, held = self.steps_taken(), set(self._rendered)
        for step in range(first, first + count):
            missing = self._replay.missing_batches(step, held)
            held.update(missing)
            yield StepPlans(step, {number: self.request(number) for number in missing})

    def _loader(
        self, sampler: StepSampler | Sequence[SceneRequest], num_workers: int
    ) -> DataLoader[Any]:
        return DataLoader(
            PlannedScenes(self._planner.prepare),
            batch_size=None,
            sampler=sampler,
            collate_fn=_identity,
            # Each prefetched plan keeps about 20 files open.
            prefetch_factor=2 if num_workers else None,
            **worker_options(num_workers),
        )


def _identity(item: Any) -> Any:  # noqa: ANN401
    return item
