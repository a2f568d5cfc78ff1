"""One of two training processes killed; the other must end, and the run must resume."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.faults.processes import (
    HANG_SECONDS,
    PHASES,
    Watch,
    failed_reference,
    run_in_fork,
)
from benchmarks.faults.tally import Tally, Trial, max_delay, run_trials
from benchmarks.faults.tiny_runs import (
    TinyRun,
    differences,
    general_training,
    step_of,
    write_data,
)

_RANKS = 2
_FLAGS = ("--devices", str(_RANKS), "--strategy", "ddp", "--num_workers", "1")
_RUN_SECONDS = 15 * HANG_SECONDS
"""Time limit of a complete run: 10 s on an idle machine, minutes where 15 others use its cores."""
_MAX_START_SECONDS = 3.0
"""Largest delay of a stop during the start, in which the first process starts the second."""


def run(tally: Tally, count: int, deadline: float, seed: int, folder: Path) -> None:
    """Kill one of two processes ``count`` times; keep the folders of failed runs."""
    folder = Path(tempfile.mkdtemp(prefix="run", dir=folder))
    data, log, rng = folder / "data", folder / "log.txt", random.Random(seed)
    run_in_fork(lambda: int(not write_data(data)), log)
    training, reference_folder = general_training(data), folder / "reference"
    reference_folder.mkdir()
    pair = ProcessPair(training, reference_folder)
    _check_reference(pair)
    reference, places = training.result(reference_folder / "runs"), pair.places()
    run_trials(
        *(tally, count, deadline, folder),
        lambda path: _run_trial(training, reference, path, places, rng),
    )


class ProcessPair:
    """The two processes of a run."""

    def __init__(self, run: TinyRun, folder: Path) -> None:
        """Start or resume a run below ``folder``."""
        self.log = folder / "log.txt"
        watches = Path(tempfile.mkdtemp(prefix="watches", dir=folder))
        self.watches = [Watch.in_file(watches / str(rank)) for rank in range(_RANKS)]
        program = [sys.executable, "-m", "benchmarks.faults.rank_program", str(watches)]
        flags = run.resume_flags(folder / "runs")
        with self.log.open("ab") as log:
            # Child processes inherit the pipe, which closes when the last of them ends.
            self.first = subprocess.Popen(
                [*program, *flags, *_FLAGS],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def places(self) -> dict[tuple[int, str], int]:
        """Return how often each process has been in each phase, where it has been."""
        counts = {
            (rank, phase): watch.occurrences(phase)
            for rank, watch in enumerate(self.watches)
            for phase in PHASES
        }
        return {place: count for place, count in counts.items() if count}

    def wait_for(self, rank: int, phase: str, occurrence: int) -> bool:
        """Wait for an occurrence of a phase; return False if the run ends before."""
        deadline = time.monotonic() + _RUN_SECONDS
        while self.watches[rank].occurrences(phase) < occurrence:
            if self.first.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def kill(self, rank: int) -> None:
        """Kill a process if it has started."""
        if process := self.watches[rank].counts.process:
            os.kill(process, signal.SIGKILL)

    def wait(self, seconds: float) -> int | None:
        """Return the exit status of the first process when all have ended, or None on timeout."""
        try:
            self.first.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            for rank in range(_RANKS):
                with contextlib.suppress(ProcessLookupError):
                    self.kill(rank)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.first.communicate(timeout=HANG_SECONDS)
            return None
        return self.first.returncode


def _check_reference(pair: ProcessPair) -> None:
    """Raise ``UserError`` unless the uninterrupted run ends well, to which others are compared."""
    if (status := pair.wait(_RUN_SECONDS)) != 0:
        raise failed_reference(status, _RUN_SECONDS, pair.log)


def _run_trial(
    run: TinyRun,
    reference: Mapping[str, Any],
    folder: Path,
    places: Mapping[tuple[int, str], int],
    rng: random.Random,
) -> Trial:
    """Kill one process of a run, resume the run, and compare it with the uninterrupted one.

    ``places`` are the phases of each process of that run, with their numbers of occurrences.
    """
    trial, (rank, phase) = Trial("two processes"), rng.choice(sorted(places))
    pair = ProcessPair(run, folder)
    reached = pair.wait_for(rank, phase, rng.randint(1, places[rank, phase]))
    time.sleep(rng.random() * (_MAX_START_SECONDS if phase == "start" else max_delay(phase)))
    if reached and pair.first.poll() is None:
        saved = step_of(folder / "runs" / run.last)
        pair.kill(rank)
        trial.stops.append((f"rank {rank} killed", phase))
        status = pair.wait(HANG_SECONDS)
        if all(watch.counts.process for watch in pair.watches):
            log = pair.log.read_text(errors="replace")
            ending = pair.watches[1 - rank].occurrences("end") > 0
            trial.failures.update(_failures_of_end(status, rank, log, ending))
        if step_of(folder / "runs" / run.last) < saved:
            trial.failures.add("lost work")
    elif (status := pair.wait(HANG_SECONDS)) != 0:
        trial.failures.add("hangs" if status is None else "other")
    if ProcessPair(run, folder).wait(_RUN_SECONDS) != 0:
        trial.failures.add("not resumed")
    else:
        trial.failures.update(differences(run.result(folder / "runs"), reference))
    return trial


def _failures_of_end(status: int | None, killed: int, log: str, ending: bool) -> set[str]:
    """Return the failures of the other process after one was killed.

    A process that is killed at the very end may go unnoticed, if the other one is ``ending``.
    """
    if status is None:
        return {"hangs"}
    failures = {"tracebacks"} if "Traceback" in log else set()
    noticed = f"error: process {killed} " in log
    # The status is that of the first process, which alone says that it is done.
    expected = (noticed or ending) if killed == 0 else (noticed if status == 1 else "done;" in log)
    return failures if expected else {*failures, "no message"}
