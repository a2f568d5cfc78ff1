"""One of two processes that train together is killed; the other ends, and the run goes on."""

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

from benchmarks.faults.cases import MOST_TIMES, Case, longest_wait, stop_runs
from benchmarks.faults.processes import HANG, PHASES, Watch, run_whole
from benchmarks.faults.table import Tally
from benchmarks.faults.tiny_runs import TinyRun, general_training, same, step_of, write_data

_RANKS = 2
_FLAGS = ("--devices", str(_RANKS), "--strategy", "ddp", "--num_workers", "1")
_WHOLE = 5 * HANG
"""Seconds for a whole run, which takes ten on a machine that has nothing else to do."""
_LONGEST_START = 3.0
"""Seconds from the start of the first process on, in which it starts the other."""
_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


class Pair:
    """Two processes of a run, from their start to the end of both."""

    def __init__(self, run: TinyRun, folder: Path) -> None:
        """Start or resume a run below ``folder``."""
        self.log = folder / "log.txt"
        watches = Path(tempfile.mkdtemp(prefix="watches", dir=folder))
        self.watches = [Watch.shared(watches / str(rank)) for rank in range(_RANKS)]
        program = [sys.executable, "-m", "benchmarks.faults.rank_program", str(watches)]
        flags = run.flags_to_go_on(folder / "runs")
        with self.log.open("ab") as log:
            # All that they start inherits the pipe: it is closed when the last of them has ended.
            self.first = subprocess.Popen(
                [*program, *flags, *_FLAGS],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **_ENVIRONMENT},
            )

    def wait_for(self, rank: int, phase: str, times: int) -> bool:
        """Wait until a rank has begun a phase so often; return false if the run ends before."""
        deadline = time.monotonic() + _WHOLE
        while self.watches[rank].times(phase) < times:
            if self.first.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def kill(self, rank: int) -> None:
        """Kill a rank, if it has begun."""
        if process := self.watches[rank].counts.process:
            os.kill(process, signal.SIGKILL)

    def end(self, seconds: float) -> int | None:
        """Return the exit status of the first when all have ended; None if they do not."""
        try:
            self.first.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            for rank in range(_RANKS):
                with contextlib.suppress(ProcessLookupError):
                    self.kill(rank)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.first.communicate(timeout=HANG)
            return None
        return self.first.returncode


def try_run(run: TinyRun, whole: Mapping[str, Any], folder: Path, draw: random.Random) -> Case:
    """Kill one process of a run once, let the run go on, and compare it with the whole one."""
    case, victim, phase = Case("two processes"), draw.randrange(_RANKS), draw.choice(PHASES)
    pair = Pair(run, folder)
    reached = pair.wait_for(victim, phase, draw.randint(1, MOST_TIMES[phase]))
    time.sleep(draw.random() * (_LONGEST_START if phase == "start" else longest_wait(phase)))
    if reached and pair.first.poll() is None:
        saved = step_of(folder / "runs" / run.last)
        pair.kill(victim)
        case.stops.append((f"rank {victim} killed", phase))
        status = pair.end(HANG)
        if all(watch.counts.process for watch in pair.watches):
            case.faults.update(_wrong_end(status, victim, pair.log.read_text(errors="replace")))
        if step_of(folder / "runs" / run.last) < saved:
            case.faults.add("lost work")
    elif (status := pair.end(HANG)) != 0:
        case.faults.add("hangs" if status is None else "other")
    if Pair(run, folder).end(_WHOLE) != 0:
        case.faults.add("not resumed")
    else:
        result = run.result(folder / "runs")
        case.faults.update(name for name in whole if not same(result[name], whole[name]))
    return case


def _wrong_end(status: int | None, victim: int, log: str) -> set[str]:
    """Return what was wrong with how the other process ended after one was killed."""
    if status is None:
        return {"hangs"}
    wrong = {"tracebacks"} if "Traceback" in log else set()
    # A process that is lost at the very end is not missed.
    ends = {0: "done;", 1: f"error: process {victim} "}
    expected = list(ends.values()) if victim == 0 else [ends.get(status, "another status")]
    return wrong if any(words in log for words in expected) else {*wrong, "no message"}


def run_ranks(tally: Tally, count: int, deadline: float, seed: int, folder: Path) -> None:
    """Kill so often one of two processes; the folders of runs with faults are kept."""
    folder = Path(tempfile.mkdtemp(prefix="run", dir=folder))
    data, log, draw = folder / "data", folder / "log.txt", random.Random(seed)
    run_whole(lambda: int(not write_data(data)), log)
    run, whole = general_training(data), folder / "whole"
    whole.mkdir()
    if Pair(run, whole).end(_WHOLE) != 0:
        raise RuntimeError((whole / "log.txt").read_text())
    result = run.result(whole / "runs")
    stop_runs(tally, count, deadline, folder, lambda place: try_run(run, result, place, draw))
