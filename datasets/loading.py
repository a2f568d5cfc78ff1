"""Loading of samples by processes beside the training, which share memory with it."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import distributed, multiprocessing
from torch.utils.data import DataLoader, Dataset

from datasets.views import Sample, collate_samples
from utils.errors import UserError

_SHARED = Path("/dev/shm")
_PREFETCHED = 2
"""Batches that each process has ready, PyTorch's own number."""
_FEW_FILES = 4096
"""Open files below which batches are not passed on as such: each has several tensors."""


def check_shared_memory(num_workers: int, batch_bytes: int) -> None:
    """Refuse more loading processes than shared memory has room for; they would end or hang.

    Where few files may be open, tensors are shared by name instead of as open files.
    """
    if not num_workers:
        return
    if sys.platform != "win32" and _open_files_allowed() < _FEW_FILES:
        multiprocessing.set_sharing_strategy("file_system")
    needed = num_workers * _PREFETCHED * batch_bytes
    free = shutil.disk_usage(_SHARED).free if _SHARED.is_dir() else needed
    if needed > free:
        raise UserError(
            f"{_SHARED} has {free / 2**20:.3g} MiB free, but {num_workers} loading processes need "
            f"up to {needed / 2**20:.3g} MiB there. Read in the training process with "
            "--num_workers 0, or give a container more with docker run --shm-size=8g."
        )


def _open_files_allowed() -> int:
    import resource  # Not on Windows.

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def process_options(num_workers: int) -> dict[str, Any]:
    """Return the options of a ``DataLoader`` that say how its processes are started."""
    options: dict[str, Any] = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
    if num_workers and distributed.is_initialized():
        # PyTorch's threads that talk to other processes come and go in the interpreter: a copy of
        # this process that is made meanwhile can wait for them for ever.
        multiprocessing.set_forkserver_preload([__name__])
        options |= {"multiprocessing_context": "forkserver", "worker_init_fn": _end_with_training}
    return options


def _end_with_training(worker: int) -> None:
    """End this process when the training does, however: it is no child of it, but of the server."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    training = multiprocessing.parent_process()
    assert training is not None
    training.join()
    os._exit(1)


class SampleLoader(DataLoader[Sample]):
    """A loader of collated samples that hands a worker's ``UserError`` on as it was."""

    def __init__(self, dataset: Dataset[Sample], num_workers: int = 0, **options: Any) -> None:  # noqa: ANN401
        options |= process_options(num_workers)
        super().__init__(dataset, collate_fn=collate_samples, **options)

    def __iter__(self) -> Iterator[Sample]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Give collated samples; workers start with the first of them, not before."""
        try:
            yield from super().__iter__()
        except UserError as error:
            # Workers wrap the message into their traceback; only the message is for the user.
            raise UserError(str(error).rpartition(f"{UserError.__name__}: ")[2].strip()) from error
