"""Copies of this process that run a job, to be stopped from outside in a chosen phase of it."""

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

PHASES = ("start", "step", "save", "validation", "end")
_POLL = 5e-4
HANG = 60.0
"""Seconds after which a process that was told to stop counts as hanging."""


class _Counts(ctypes.Structure):
    _fields_: ClassVar = [
        ("entered", ctypes.c_int * len(PHASES)),
        ("saved", ctypes.c_int),
        ("process", ctypes.c_int),
    ]


@dataclass(frozen=True)
class Watch:
    """What a process tells of its run, in memory that it shares with this one."""

    counts: Any
    """How often each phase has begun, the steps that are in the last whole file, the process id."""

    @classmethod
    def forked(cls) -> Watch:
        """Return one that copies of this process share."""
        return cls(RawValue(_Counts))

    @classmethod
    def shared(cls, path: Path) -> Watch:
        """Return the one that a file holds, which any process may open."""
        with path.open("ab+") as file:
            file.truncate(ctypes.sizeof(_Counts))
            return cls(_Counts.from_buffer(mmap.mmap(file.fileno(), 0)))

    def enter(self, phase: str) -> None:
        """Note that a phase begins."""
        self.counts.entered[PHASES.index(phase)] += 1

    def times(self, phase: str) -> int:
        """Return how often a phase has begun."""
        return self.counts.entered[PHASES.index(phase)]

    def mark(self, owner: Any, method: str, phase: str) -> None:  # noqa: ANN401
        """Let a method of a class, or a function of a module, note that its phase begins."""
        real = getattr(owner, method)

        @functools.wraps(real)
        def marked(*args: object, **kwargs: object) -> object:
            self.enter(phase)
            return real(*args, **kwargs)

        setattr(owner, method, marked)


def fork(job: Callable[[], int], log: Path) -> int:
    """Run a job in a copy of this process, whose words go to a file; return the id of the copy.

    Importing PyTorch takes longer than a tiny run. This process must not have differentiated:
    PyTorch's threads do not survive.
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
    except BaseException:  # noqa: BLE001 - With the traceback, as the interpreter ends.
        traceback.print_exc()
    finally:
        os._exit(status)


def run_whole(job: Callable[[], int], log: Path) -> None:
    """Run a job in a copy of this process, and fail if it fails."""
    status = finished(fork(job, log), time.monotonic() + 10 * HANG)
    if status:
        raise RuntimeError(f"exit status {status}: {log.read_text()}")


def finished(process: int, deadline: float, until: Callable[[], bool] | None = None) -> int | None:
    """Wait for a process to end and return its status: negative for signals.

    Returns None if ``until`` becomes true before; at the deadline the process is ended, and
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
        time.sleep(_POLL)
