"""Loaders of samples: errors that a user can read, and a place in the data that survives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from datasets.samplers import SceneBatchSampler
from datasets.views import Sample, collate_samples
from utils.errors import UserError


class SampleLoader(DataLoader[Sample]):
    """A loader of collated samples that hands a worker's ``UserError`` on as it was."""

    def __init__(self, dataset: Dataset[Sample], **options: Any) -> None:  # noqa: ANN401
        """Take the options of ``DataLoader``; workers stay alive between epochs."""
        persistent = options.get("num_workers", 0) > 0
        super().__init__(
            dataset, collate_fn=collate_samples, persistent_workers=persistent, **options
        )

    def __iter__(self) -> Iterator[Sample]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Give collated samples; workers start with the first of them, not before."""
        try:
            yield from super().__iter__()
        except UserError as error:
            # Workers wrap the message into their traceback; only the message is for the user.
            raise UserError(str(error).rpartition(f"{UserError.__name__}: ")[2].strip()) from error


class ResumableDataLoader(SampleLoader):
    """A training loader that knows its place, and goes on from it after ``load_state_dict``.

    Lightning saves and restores the state of training loaders that have these two methods, but it
    tells neither a batch sampler nor a loader which epoch it is, and it asks for an iterator more
    often than it uses one. So the loader counts epochs itself, and an iterator decides where it
    begins only when its first batch is asked for. What counts is batches handed out: those that
    workers have prepared in advance are prepared again after a resume.
    """

    def __init__(
        self,
        dataset: Dataset[Sample],
        batch_sampler: SceneBatchSampler,
        **options: Any,  # noqa: ANN401
    ) -> None:
        """Take further options of ``DataLoader``."""
        super().__init__(dataset, batch_sampler=batch_sampler, **options)
        self._scene_sampler = batch_sampler
        self._epoch, self._batches_given = 0, 0
        self._continues = True

    def __iter__(self) -> Iterator[Sample]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Give the rest of the epoch after loading a state, otherwise the next epoch."""
        if not self._continues or self._batches_given >= len(self):
            self._epoch, self._batches_given = self._epoch + 1, 0
        self._continues = False
        self._scene_sampler.set_epoch(self._epoch, self._batches_given)
        for batch in super().__iter__():
            self._batches_given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the place in the data, the same on every rank."""
        return {
            "epoch": self._epoch,
            "batches_given": self._batches_given,
            "batches_per_epoch": len(self),
            "seed": self._scene_sampler.seed,
        }

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go to a place; the next iterator begins there.

        Raises:
            UserError: The place belongs to other data, another seed or another number of devices.
        """
        here = self.state_dict()
        for name in ("batches_per_epoch", "seed"):
            if state_dict.get(name) != here[name]:
                raise UserError(
                    f"The checkpoint's place in the data has {name} {state_dict.get(name)}, but "
                    f"this run has {here[name]}. Resume with the same data, seed, batch size and "
                    "number of devices, or begin a new run from the weights with --init_ckpt."
                )
        self._epoch, self._batches_given = state_dict["epoch"], state_dict["batches_given"]
        self._continues = True
