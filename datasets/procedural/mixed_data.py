"""Lightning data module that mixes procedural worlds with data sets on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Any

from torch.utils.data import DataLoader

from datasets.config import DataConfig
from datasets.data_module import SceneDataModule
from datasets.loading import ResumableDataLoader
from datasets.procedural.config import ProceduralDataConfig, ReplayConfig
from datasets.procedural.data_module import ProceduralDataModule
from datasets.views import Sample


class MixedDataModule(ProceduralDataModule):
    """Procedural worlds, with batches from disk spread evenly over the steps.

    The data of a step are a function of the step alone. Validation has two loaders: one of worlds
    and one of the data sets on disk.
    """

    def __init__(
        self, data: DataConfig, worlds: ProceduralDataConfig, replay: ReplayConfig, seed: int = 0
    ) -> None:
        super().__init__(data, worlds, replay, seed)
        self._disk_share = 1 - data.share_of_worlds
        """Fraction of the steps that train on data from disk."""
        # At least one worker, unless all data are read in the training process.
        workers = min(data.num_workers, max(1, round(data.num_workers * self._disk_share)))
        self._on_disk = SceneDataModule(replace(data, num_workers=workers), seed)

    def setup(self, stage: str = "fit") -> None:
        """List and check the data on disk. Entry scripts call this first, to fail early."""
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
            self._on_disk.train_dataloader(),
            steps=self.batches_per_epoch,
            next_step=super().steps_taken,
            disk_steps=self._disk_steps,
        )

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Return the loaders of held-out worlds and of the validation views on disk."""
        self._on_disk.trainer = self.trainer
        return [super().val_dataloader(), self._on_disk.val_dataloader()]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Sample:  # noqa: ANN401
        """Render plans; samples from disk are complete."""
        if isinstance(batch, Sample):
            return batch
        return super().on_after_batch_transfer(batch, dataloader_idx)

    def state_dict(self) -> dict[str, Any]:
        """Return the fingerprint of the data on disk; the position follows from the step."""
        return {"data": self._on_disk.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that the data on disk are unchanged."""
        if "data" in state_dict:
            self._on_disk.load_state_dict({"data": state_dict["data"]})

    def _disk_steps(self, step: int) -> int:
        """Count the steps before ``step`` that train on data from disk."""
        return int(step * self._disk_share)


@dataclass(frozen=True, eq=False)
class InterleavedLoader:
    """The steps of an epoch, each from one of two loaders."""

    worlds: DataLoader[Any]
    on_disk: ResumableDataLoader
    steps: int
    next_step: Callable[[], int]
    """Returns the run's next step."""
    disk_steps: Callable[[int], int]
    """Counts the steps from disk before a step."""

    def __len__(self) -> int:
        """Count the steps of an epoch."""
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of the run's next steps."""
        first = self.next_step()
        self.on_disk.start_at(*divmod(self.disk_steps(first), len(self.on_disk)))
        worlds, on_disk = iter(self.worlds), chain.from_iterable(repeat(self.on_disk))
        for step in range(first, first + self.steps):
            from_disk = self.disk_steps(step + 1) > self.disk_steps(step)
            yield next(on_disk if from_disk else worlds)
