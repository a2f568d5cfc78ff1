"""Damaged files for every parser: a result, or one clear error, in bounded time and memory."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from ctypes import c_int
from dataclasses import dataclass
from functools import partial
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any

from benchmarks.faults.mutations import damaged
from benchmarks.faults.parsers import all_parsers
from benchmarks.faults.processes import finished, fork
from benchmarks.faults.samples import Parser
from benchmarks.faults.table import Tally
from utils.errors import UserError

_SECONDS, _BYTES = 10, 1 << 30
"""That one file may take."""
_OUTCOMES = ("fine", "hangs", "tracebacks", "memory", "other")
_BATCH = 2000
_LONGEST_MESSAGE = 3000


class _TooLong(BaseException):
    """A file took too long."""


def run_fuzz(tally: Tally, count: int, deadline: float, seed: int, folder: Path) -> None:
    """Share inputs evenly among the parsers; what went wrong is kept with how it did."""
    parsers = all_parsers()
    each = -(-count // len(parsers))
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as work:
        for first in range(0, each, _BATCH):
            for number, parser in enumerate(parsers):
                if time.monotonic() > deadline:
                    return
                inputs = range(first, min(first + _BATCH, each))
                _run_batch(parser, inputs, seed, Path(work) / str(number), folder, tally)


def _run_batch(
    parser: Parser, inputs: range, seed: int, work: Path, folder: Path, tally: Tally
) -> None:
    """Read inputs in a process of their own, and go on in another behind one that ended it."""
    first = inputs.start
    while first < inputs.stop:
        counts = RawArray(c_int, len(_OUTCOMES))
        job = partial(_read_all, parser, range(first, inputs.stop), seed, work, folder, counts)
        process, place = fork(job, folder / "log.txt"), _Place(counts)
        status = finished(process, time.monotonic() + 1e6, place.is_stuck)
        for outcome, number in zip(_OUTCOMES, counts, strict=True):
            if number:
                tally.add(parser.name, [outcome] if outcome != "fine" else [], number)
        first += sum(counts)
        if status != 0:
            if status is None:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            # The input that did it was not counted.
            outcome = "hangs" if status is None else "tracebacks"
            tally.add(parser.name, [outcome])
            _keep(folder, parser, first, seed, f"{outcome}: the process ended with {status}")
            first += 1


@dataclass
class _Place:
    """How long a process has been reading one file."""

    counts: Any
    done: int = -1
    since: float = 0.0

    def is_stuck(self) -> bool:
        """Tell whether a file takes so long that no timer can interrupt it."""
        if (done := sum(self.counts)) != self.done:
            self.done, self.since = done, time.monotonic()
        return time.monotonic() - self.since > 3 * _SECONDS


def _read_all(  # noqa: PLR0913
    parser: Parser,
    inputs: range,
    seed: int,
    work: Path,
    folder: Path,
    counts: Any,  # noqa: ANN401
) -> int:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _raise_too_long)
    path = work / parser.name
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, content in parser.beside:
        (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / name).write_bytes(content)
    usual = _peak_bytes()
    for number in inputs:
        path.write_bytes(_input(parser, number, seed))
        outcome, words = _outcome(parser, path)
        if _peak_bytes() > usual + _BYTES:
            outcome, words, usual = "memory", f"{_peak_bytes() - usual} bytes", _peak_bytes()
        if outcome != "fine":
            _keep(folder, parser, number, seed, words)
        counts[_OUTCOMES.index(outcome)] += 1
    return 0


def _input(parser: Parser, number: int, seed: int) -> bytes:
    draw = random.Random(f"{seed} {parser.name} {number}")
    return damaged(parser.content, draw)


def _outcome(parser: Parser, path: Path) -> tuple[str, str]:
    """Read a file; return how that went, and in which words if it went wrong."""
    try:
        with _timed():
            parser.read(path)
    except UserError as error:
        # A scene's own folder will do for what is wrong with its files together.
        named = any(part in str(error) for part in Path(parser.name).parts)
        clear = named and len(str(error)) < _LONGEST_MESSAGE
        return ("fine", "") if clear else ("other", f"unclear: {error}")
    except _TooLong:
        return "hangs", "too long"
    except BaseException:  # noqa: BLE001 - Any other one is a fault.
        return "tracebacks", traceback.format_exc()
    return "fine", ""


@contextlib.contextmanager
def _timed() -> Iterator[None]:
    # Of the processor's time: others may use the machine.
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _raise_too_long(*_: object) -> None:
    raise _TooLong


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (
        0 if sys.platform == "darwin" else 10
    )


def _keep(folder: Path, parser: Parser, number: int, seed: int, words: str) -> None:
    """Keep a file that was not read as it should be, and why."""
    place = folder / f"{parser.name.replace('/', '_')}-{seed}-{number}"
    place.mkdir(exist_ok=True)
    (place / Path(parser.name).name).write_bytes(_input(parser, number, seed))
    (place / "why.txt").write_text(words)
