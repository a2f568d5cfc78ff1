"""Damaged files for every parser: a result or one clear error, in bounded time and memory."""

from __future__ import annotations

import contextlib
import logging
import math
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
from benchmarks.faults.parsers.all_parsers import all_parsers
from benchmarks.faults.parsers.samples import Parser
from benchmarks.faults.processes import fork, wait
from benchmarks.faults.tally import Tally
from utils.errors import UserError

_MAX_SECONDS = 10
"""Processor time of one file."""
_MAX_BYTES = 1 << 30
"""Growth of memory by one file."""
_OUTCOMES = ("fine", "hangs", "tracebacks", "memory", "other")
_BATCH = 250
"""Inputs of one parser in a round."""
_MAX_MESSAGE = 3000


class _TimeoutError(BaseException):
    """Reading a file took too long; parsers that catch ``Exception`` do not catch this."""


@dataclass(frozen=True)
class _Inputs:
    """The damaged files of one parser, by number."""

    parser: Parser
    seed: int
    failures: Path
    """Folder for the files that failed."""

    def content(self, number: int) -> bytes:
        """Return a damaged file."""
        rng = random.Random(f"{self.seed} {self.parser.name} {number}")
        return damaged(self.parser.content, rng)

    def keep(self, number: int, reason: str) -> None:
        """Store a file that failed, and the reason."""
        folder = self.failures / f"{self.parser.name.replace('/', '_')}-{self.seed}-{number}"
        folder.mkdir(exist_ok=True)
        (folder / Path(self.parser.name).name).write_bytes(self.content(number))
        (folder / "why.txt").write_text(reason)


def run(tally: Tally, count: int, deadline: float, seed: int, folder: Path) -> None:
    """Distribute ``count`` inputs evenly over the parsers, in rounds that are always finished."""
    parsers = all_parsers()
    per_parser = math.ceil(count / len(parsers))
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as work:
        for first in range(0, per_parser, _BATCH):
            if time.monotonic() > deadline:
                return
            batch = range(first, min(first + _BATCH, per_parser))
            for number, parser in enumerate(parsers):
                _run_batch(_Inputs(parser, seed, folder), batch, Path(work) / str(number), tally)


def _run_batch(inputs: _Inputs, batch: range, work: Path, tally: Tally) -> None:
    """Read inputs in a forked process; continue in another after an input that ended it."""
    first, name = batch.start, inputs.parser.name
    while first < batch.stop:
        counts = RawArray(c_int, len(_OUTCOMES))
        job = partial(_read_all, inputs, range(first, batch.stop), work, counts)
        process = fork(job, inputs.failures / "log.txt")
        status = wait(process, time.monotonic() + 1e6, _Progress(counts).is_stuck)
        for outcome, number in zip(_OUTCOMES, counts, strict=True):
            if number:
                tally.add(name, [outcome] if outcome != "fine" else [], number)
        first += sum(counts)
        if status != 0:
            if status is None:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            # The input that ended the process has not been counted.
            outcome = "hangs" if status is None else "tracebacks"
            tally.add(name, [outcome])
            inputs.keep(first, f"{outcome}: the process ended with {status}")
            first += 1


@dataclass
class _Progress:
    """Time for which a process has been reading one file."""

    counts: Any
    done: int = -1
    since: float = 0.0

    def is_stuck(self) -> bool:
        """Return whether the timer in the process must have failed to interrupt the parser."""
        if (done := sum(self.counts)) != self.done:
            self.done, self.since = done, time.monotonic()
        return time.monotonic() - self.since > 3 * _MAX_SECONDS


def _read_all(inputs: _Inputs, batch: range, work: Path, counts: Any) -> int:  # noqa: ANN401
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _raise_timeout)
    parser = inputs.parser
    path = work / parser.name
    for name, content in ((path.name, b""), *parser.other_files):
        (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / name).write_bytes(content)
    peak = _peak_bytes()
    for number in batch:
        path.write_bytes(inputs.content(number))
        outcome, reason = _read(parser, path)
        if _peak_bytes() > peak + _MAX_BYTES:
            outcome, reason, peak = "memory", f"{_peak_bytes() - peak} bytes", _peak_bytes()
        if outcome != "fine":
            inputs.keep(number, reason)
        counts[_OUTCOMES.index(outcome)] += 1
    return 0


def _read(parser: Parser, path: Path) -> tuple[str, str]:
    """Read a file; return the outcome, and the reason if it is a failure."""
    try:
        with _time_limit():
            parser.read(path)
    except UserError as error:
        # An error about several files of a scene may name its folder only.
        named = any(part in str(error) for part in Path(parser.name).parts)
        clear = named and len(str(error)) < _MAX_MESSAGE
        return ("fine", "") if clear else ("other", f"unclear: {error}")
    except _TimeoutError:
        return "hangs", "too long"
    except BaseException:  # noqa: BLE001 - Any other exception is a failure.
        return "tracebacks", traceback.format_exc()
    return "fine", ""


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """Limit the processor time, which does not depend on other programs."""
    signal.setitimer(signal.ITIMER_PROF, _MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _raise_timeout(*_: object) -> None:
    raise _TimeoutError


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
