"""Procedural worlds mixed with data sets on disk, as data of a general training run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch.utils.data import DataLoader

from datasets.config import DataConfig
from datasets.data_module import SceneBatchSampler, SceneDataModule
from datasets.loading import SampleLoader
from datasets.procedural.config import ProceduralDataConfig, ReplayConfig
from datasets.procedural_data import ProceduralDataModule
from datasets.views import Sample


class MixedDataModule(ProceduralDataModule):
    """Procedural worlds, and between them batches from disk, spread evenly over the steps.

    What a step trains on is a function of the step alone. Validation has two loaders: the worlds'
    and that of the data sets on disk.
    """

    def __init__(
        self, data: DataConfig, worlds: ProceduralDataConfig, replay: ReplayConfig, seed: int = 0
    ) -> None:
        super().__init__(data, worlds, replay, seed)
        self._share = 1 - data.share_of_worlds
        """Of the steps, that of the data sets on disk."""
        # Processes in proportion; with none, all is read in the training process.
        workers = min(data.num_workers, max(1, round(data.num_workers * self._share)))
        self._on_disk = SceneDataModule(replace(data, num_workers=workers), seed)
        self._disk_workers = workers

    def setup(self, stage: str = "fit") -> None:
        """List the data on disk; entry scripts call this first, to fail before any long work."""
        self._on_disk.setup(stage)

    def steps_taken(self) -> int:
        """Count the steps of the run so far that trained on worlds."""
        step = super().steps_taken()
        return step - self._disk_steps(step)

    def train_dataloader(self) -> InterleavedLoader:
        """Return the loader of the run's next steps."""
        self._on_disk.trainer = self.trainer
        return InterleavedLoader(
            super().train_dataloader(),
            EndlessLoader(
                self._on_disk.train_dataset, self._on_disk.train_sampler(), self._disk_workers
            ),
            steps=self.batches_per_epoch,
            next_step=super().steps_taken,
            disk_steps=self._disk_steps,
        )

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Return the loaders of held-out worlds and of the held-out views on disk."""
        self._on_disk.trainer = self.trainer
        return [super().val_dataloader(), self._on_disk.val_dataloader()]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Sample:  # noqa: ANN401
        """Render plans."""
        if isinstance(batch, Sample):
            return batch
        return super().on_after_batch_transfer(batch, dataloader_idx)

    def state_dict(self) -> dict[str, Any]:
        """Return what the data on disk are, for the checkpoint; the step says the place in them."""
        return {"data": self._on_disk.data_record}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data on disk are those that the run began with."""
        if "data" in state_dict:
            self._on_disk.load_state_dict({"data": state_dict["data"]})

    def _disk_steps(self, step: int) -> int:
        """Count the steps before a step that train on data from disk."""
        return int(step * self._share)


class EndlessLoader:
    """Training batches from disk, one epoch after the other, from any batch on."""

    def __init__(self, dataset: Any, sampler: SceneBatchSampler, num_workers: int) -> None:  # noqa: ANN401
        self._sampler = sampler
        self._loader = SampleLoader(dataset, num_workers, batch_sampler=sampler)

    def from_batch(self, number: int) -> Iterator[Sample]:
        """Give the batches from a numbered one on, counted over all epochs."""
        epoch, first = divmod(number, len(self._sampler))
        while True:
            self._sampler.set_epoch(epoch, first)
            yield from self._loader
            epoch, first = epoch + 1, 0


class InterleavedLoader:
    """The steps of an epoch, each from one of two loaders."""

    def __init__(
        self,
        worlds: DataLoader[Any],
        on_disk: EndlessLoader,
        *,
        steps: int,
        next_step: Callable[[], int],
        disk_steps: Callable[[int], int],
    ) -> None:
        """``next_step`` counts the steps taken, ``disk_steps`` those before a step from disk."""
        self._worlds, self._on_disk, self._steps = worlds, on_disk, steps
        self._next_step, self._disk_steps = next_step, disk_steps

    def __len__(self) -> int:
        """Count the steps of an epoch."""
        return self._steps

    def __iter__(self) -> Iterator[Any]:
        """Give the next steps of the run, from when the first of them is asked for."""
        first = self._next_step()
        worlds, on_disk = iter(self._worlds), self._on_disk.from_batch(self._disk_steps(first))
        for step in range(first, first + self._steps):
            from_disk = self._disk_steps(step + 1) > self._disk_steps(step)
            yield next(on_disk if from_disk else worlds)
