"""Data loaders whose worker processes share memory with the training process."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import distributed, multiprocessing
from torch.utils.data import DataLoader, Dataset

from datasets.sampling import SceneBatchSampler
from datasets.views import Sample, collate_samples
from utils.errors import UserError

_SHARED_MEMORY = Path("/dev/shm")
_PREFETCHED = 2
"""Batches that each worker prefetches: PyTorch's default."""
_MIN_OPEN_FILES = 4096
"""Limit of open files below which workers do not send tensors as file descriptors."""


def rank_and_world_size(data: pl.LightningDataModule) -> tuple[int, int]:
    """Return the trainer's rank and number of ranks; 0 and 1 without a trainer."""
    if data.trainer is None:
        return 0, 1
    return data.trainer.global_rank, data.trainer.world_size


def check_shared_memory(num_workers: int, batch_bytes: int) -> None:
    """Refuse more workers than shared memory has room for: they would crash or hang.

    Where the limit of open files is low, tensors are shared by name instead of file descriptor.
    """
    if not num_workers:
        return
    if sys.platform != "win32" and _open_files_limit() < _MIN_OPEN_FILES:
        multiprocessing.set_sharing_strategy("file_system")
    needed = num_workers * _PREFETCHED * batch_bytes
    free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else needed
    if needed > free:
        raise UserError(
            f"{_SHARED_MEMORY} has {free / 2**20:.3g} MiB free, but {num_workers} worker processes "
            f"need up to {needed / 2**20:.3g} MiB there. Read in the training process with "
            "--num_workers 0, or give a container more with docker run --shm-size=8g."
        )


def _open_files_limit() -> int:
    import resource  # Not on Windows.

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def worker_options(num_workers: int) -> dict[str, Any]:
    """Return the options of a ``DataLoader`` for its worker processes."""
    options: dict[str, Any] = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
    if num_workers and distributed.is_initialized():
        # PyTorch's communication threads may hold a lock of the interpreter during a fork, for
        # which the forked worker would wait for ever.
        multiprocessing.set_forkserver_preload([__name__])
        options |= {"multiprocessing_context": "forkserver", "worker_init_fn": _exit_with_training}
    return options


def _exit_with_training(worker: int) -> None:
    """End this worker when the training process ends: its parent is the fork server."""
    training = multiprocessing.parent_process()
    assert training is not None

    def wait_and_exit() -> None:
        training.join()
        os._exit(1)

    def report(*error: Any) -> None:  # noqa: ANN401
        # The thread that sends tensors fails when their receiver has been killed.
        training.join(1)
        if training.is_alive():
            sys.__excepthook__(*error)

    threading.Thread(target=wait_and_exit, daemon=True).start()
    sys.excepthook = report


class SampleLoader(DataLoader[Sample]):
    """A loader of collated samples that reraises a worker's ``UserError`` without a traceback."""

    def __init__(self, dataset: Dataset[Sample], num_workers: int = 0, **options: Any) -> None:  # noqa: ANN401
        options |= worker_options(num_workers)
        super().__init__(dataset, collate_fn=collate_samples, **options)

    def __iter__(self) -> Iterator[Sample]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Yield collated samples; workers start when the first one is requested."""
        try:
            yield from super().__iter__()
        except UserError as error:
            # Workers embed the message in their traceback.
            raise UserError(str(error).rpartition(f"{UserError.__name__}: ")[2].strip()) from error


class ResumableDataLoader(SampleLoader):
    """A training loader whose state is its position in the data.

    Lightning does not tell a loader the epoch, and creates more iterators than it uses. The loader
    therefore counts epochs itself, and an iterator determines its first batch when that batch is
    requested. Batches that workers had prefetched are loaded again after a resume.
    """

    def __init__(
        self,
        dataset: Dataset[Sample],
        batch_sampler: SceneBatchSampler,
        num_workers: int = 0,
    ) -> None:
        super().__init__(dataset, num_workers, batch_sampler=batch_sampler)
        self._scene_sampler = batch_sampler
        self.start_at(0, 0)

    def start_at(self, epoch: int, batch: int) -> None:
        """Let the next iterator begin with a batch of an epoch, both counted from 0."""
        self._epoch, self._batches_given = epoch, batch
        self._continues = True

    def __iter__(self) -> Iterator[Sample]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Yield the rest of the epoch after ``start_at``, otherwise the next epoch."""
        if not self._continues or self._batches_given >= len(self):
            self._epoch, self._batches_given = self._epoch + 1, 0
        self._continues = False
        self._scene_sampler.set_epoch(self._epoch, self._batches_given)
        for batch in super().__iter__():
            self._batches_given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the position in the data, which is the same on all ranks."""
        return {
            "epoch": self._epoch,
            "batches_given": self._batches_given,
            "batches_per_epoch": len(self),
            "seed": self._scene_sampler.seed,
        }

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue from a saved position."""
        current = self.state_dict()
        for name in ("batches_per_epoch", "seed"):
            if state_dict.get(name) != current[name]:
                raise UserError(
                    f"The checkpoint's position in the data has {name} {state_dict.get(name)}, but "
                    f"this run has {current[name]}. Resume with the same data, seed, batch size "
                    "and number of devices, or start from the weights with --init_ckpt."
                )
        self.start_at(state_dict["epoch"], state_dict["batches_given"])
