"""Stops of both trainings at any moment; the run that goes on must be the uninterrupted one."""

from __future__ import annotations

import itertools
import logging
import os
import random
import signal
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from benchmarks.faults.cases import MOST_TIMES, Case, longest_wait, stop_runs
from benchmarks.faults.processes import HANG, PHASES, Watch, finished, fork, run_whole
from benchmarks.faults.table import Tally
from benchmarks.faults.tiny_runs import (
    TinyRun,
    fine_tuning,
    general_training,
    same,
    step_of,
    write_data,
)
from training import checkpointing
from training.checkpointing import LastCheckpoint
from training.finetuning import run_log
from training.finetuning.module import FineTuningModule
from training.finetuning.run_log import RunLog
from training.general_module import GeneralModule
from utils.interrupts import stop_at_once

logger = logging.getLogger(__name__)
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def watched(run: TinyRun, runs: Path, watch: Watch) -> int:
    """Go on with a run in this process, as its script does, and tell of its phases."""
    stop_at_once()
    mark_phases(watch)
    return run.go_on(runs)


def mark_phases(watch: Watch) -> None:
    """Let both trainings tell in this process which phase begins."""
    for module in (GeneralModule, FineTuningModule):
        watch.mark(module, "training_step", "step")
    watch.mark(GeneralModule, "validation_step", "validation")
    watch.mark(RunLog, "_validate", "validation")
    watch.mark(RunLog, "finish", "end")
    watch.mark(GeneralModule, "on_train_end", "end")
    for module in (checkpointing, run_log):
        watch.mark(module, "save_atomically", "save")
    save = LastCheckpoint.save

    def noting_save(self: LastCheckpoint, trainer: pl.Trainer) -> None:
        save(self, trainer)
        watch.counts.saved = trainer.global_step

    LastCheckpoint.save = noting_save
    watch.enter("start")


def stop_once(run: TinyRun, runs: Path, log: Path, draw: random.Random, case: Case) -> bool:
    """Go on with a run, stop it at a random moment of a random phase, and look at what it left.

    Returns whether the stop came before the run was over.
    """
    signum, phase = draw.choice(_SIGNALS), draw.choice(PHASES)
    nth = draw.randint(1, MOST_TIMES[phase])
    delay = draw.random() * longest_wait(phase)
    watch, last = Watch.forked(), runs / run.last
    before = step_of(last)
    watch.counts.saved = before
    process = fork(partial(watched, run, runs, watch), log)
    deadline = time.monotonic() + HANG
    if finished(process, deadline, lambda: watch.times(phase) >= nth) is not None:
        return False
    time.sleep(delay)
    saved, begun = watch.counts.saved, before + watch.times("step")
    os.kill(process, signum)
    status = finished(process, time.monotonic() + HANG)
    if status == 0:
        return False
    case.stops.append((signum.name, phase))
    if status not in (-signum, 128 + signum):
        case.faults.add(f"exit {status}")
    if step_of(last) < (begun if status == 128 + signum and begun > before else saved):
        case.faults.add("lost work")
    return True


def try_run(run: TinyRun, whole: Mapping[str, Any], folder: Path, draw: random.Random) -> Case:
    """Stop a run once or twice, let it end, and compare it with the uninterrupted one."""
    case, runs, log = Case(run.name), folder / "runs", folder / "log.txt"
    try:
        for _ in range(draw.randint(1, 2)):
            if not stop_once(run, runs, log, draw, case):
                break
        status = finished(fork(partial(run.go_on, runs), log), time.monotonic() + 2 * HANG)
        if status:
            case.faults.add(f"exit {status}")
        else:
            result = run.result(runs)
            case.faults.update(name for name in whole if not same(result[name], whole[name]))
    except TimeoutError:
        case.faults.add("hangs")
    if "Traceback" in log.read_text():
        case.faults.add("tracebacks")
    return case


def run_kills(tally: Tally, count: int, deadline: float, seed: int, folder: Path) -> None:
    """Stop trainings so often, every third of them a fine-tuning."""
    folder = Path(tempfile.mkdtemp(prefix="run", dir=folder))
    runs, wholes = _whole_runs(folder)
    turns, draw = itertools.cycle(runs), random.Random(seed)

    def one_case(place: Path) -> Case:
        run = next(turns)
        return try_run(run, wholes[run.name], place, draw)

    stop_runs(tally, count, deadline, folder, one_case)


def _whole_runs(folder: Path) -> tuple[list[TinyRun], dict[str, dict[str, Any]]]:
    """Return the runs that take turns, and what each leaves when nothing stops it."""
    data, log, whole = folder / "data", folder / "log.txt", folder / "whole"
    run_whole(lambda: int(not write_data(data)), log)
    general = general_training(data)
    runs, results = [general, fine_tuning(data, whole / general.last)], {}
    for run in runs:
        run_whole(partial(run.go_on, whole), log)
        results[run.name] = run.result(whole)
    return [general, *runs], results
