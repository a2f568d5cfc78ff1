"""Forked processes that report the phases of a training, so that they can be stopped in any."""

from __future__ import annotations

import ctypes
import functools
import logging
import mmap
import os
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any, ClassVar

from utils.errors import UserError

PHASES = ("start", "step", "save", "validation", "end")
_POLL_SECONDS = 5e-4
HANG_SECONDS = 60.0
"""Time after which a process that should stop counts as hanging."""


class _Counts(ctypes.Structure):
    _fields_: ClassVar = [
        ("entered", ctypes.c_int * len(PHASES)),
        ("saved", ctypes.c_int),
        ("process", ctypes.c_int),
    ]


@dataclass(frozen=True)
class Watch:
    """Progress of a training process, in memory shared with this process."""

    counts: Any
    """Occurrences of each phase, step of the last saved checkpoint, and process id."""

    @classmethod
    def in_memory(cls) -> Watch:
        """Return a watch that forks of this process share."""
        return cls(RawValue(_Counts))

    @classmethod
    def in_file(cls, path: Path) -> Watch:
        """Return the watch in a memory-mapped file, which any process can open."""
        with path.open("ab+") as file:
            file.truncate(ctypes.sizeof(_Counts))
            return cls(_Counts.from_buffer(mmap.mmap(file.fileno(), 0)))

    def enter(self, phase: str) -> None:
        """Count an occurrence of a phase."""
        self.counts.entered[PHASES.index(phase)] += 1

    def occurrences(self, phase: str) -> int:
        """Return how often a phase has occurred."""
        return self.counts.entered[PHASES.index(phase)]

    def wrap(self, owner: Any, method: str, phase: str) -> None:  # noqa: ANN401
        """Replace a method of a class, or function of a module, by one that counts its phase."""
        original = getattr(owner, method)

        @functools.wraps(original)
        def counted(*args: object, **kwargs: object) -> object:
            self.enter(phase)
            return original(*args, **kwargs)

        setattr(owner, method, counted)


def fork(job: Callable[[], int], log: Path) -> int:
    """Run a job in a forked process, with its output in a file, and return the process id.

    A fork is faster than a new process, which would import PyTorch. This process must not have
    computed gradients, since PyTorch's threads for them do not survive a fork.
    """
    process = os.fork()
    if process:
        return process
    status = 1
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    try:
        logging.getLogger().handlers.clear()
        status = job()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001 - Print the traceback, as the interpreter would.
        traceback.print_exc()
    finally:
        os._exit(status)


def run_in_fork(job: Callable[[], int], log: Path) -> None:
    """Run a job in a forked process and raise ``UserError`` if it fails."""
    seconds = 10 * HANG_SECONDS
    try:
        status = wait(fork(job, log), time.monotonic() + seconds)
    except TimeoutError:
        status = None
    if status != 0:
        raise failed_reference(status, seconds, log)


def failed_reference(status: int | None, seconds: float, log: Path) -> UserError:
    """Return the error of an undisturbed run that failed, or with None as status did not end."""
    outcome = f"ended with status {status}"
    if status is None:
        outcome = f"did not end within {seconds:.0f} s; try again when fewer programs run"
    lines = log.read_text(errors="replace").strip().splitlines() or ["it is empty"]
    return UserError(
        f"{log}: the run without faults, to which all others are compared, {outcome}. The last "
        f"line of this log: {lines[-1][:200]}"
    )


def wait(process: int, deadline: float, until: Callable[[], bool] | None = None) -> int | None:
    """Wait for a process and return its exit status, negative for signals.

    Returns None if ``until`` becomes true before. At the deadline the process is killed and
    ``TimeoutError`` raised.
    """
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if until is not None and until():
            return None
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            raise TimeoutError
        time.sleep(_POLL_SECONDS)
