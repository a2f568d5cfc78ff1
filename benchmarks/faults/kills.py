"""Stops of both trainings at any moment; the run that goes on must be the uninterrupted one."""

from __future__ import annotations

import itertools
import logging
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

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
from training import checkpointing, scene_log
from training.checkpointing import LastCheckpoint
from training.finetuning_module import FineTuningModule
from training.general_module import GeneralModule
from training.scene_log import SceneLog

logger = logging.getLogger(__name__)
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_MOST_TIMES = {"start": 1, "step": 6, "save": 4, "validation": 4, "end": 1}
"""Of a phase in a run, about: a stop waits for one of them."""
_LONGEST = {"start": 0.4, "end": 0.15}
"""Seconds that a stop then waits for at most."""
_SHORT = 0.05


@dataclass
class Case:
    """One run that is stopped once or twice, and what was wrong with it."""

    run: str
    stops: list[tuple[str, str]] = field(default_factory=list)
    """Signal and phase of each."""
    faults: set[str] = field(default_factory=set)


def watched(run: TinyRun, runs: Path, watch: Watch) -> int:
    """Go on with a run in this process, which tells of its phases."""
    for module in (GeneralModule, FineTuningModule):
        watch.mark(module, "training_step", "step")
    watch.mark(GeneralModule, "validation_step", "validation")
    watch.mark(SceneLog, "_validate", "validation")
    watch.mark(SceneLog, "finish", "end")
    watch.mark(GeneralModule, "on_train_end", "end")
    for module in (checkpointing, scene_log):
        watch.mark(module, "save_atomically", "save")
    save = LastCheckpoint.save

    def noting_save(self: LastCheckpoint, trainer: pl.Trainer) -> None:
        save(self, trainer)
        watch.saved.value = trainer.global_step

    LastCheckpoint.save = noting_save
    watch.enter("start")
    return run.go_on(runs)


def stop_once(run: TinyRun, runs: Path, log: Path, draw: random.Random, case: Case) -> bool:
    """Go on with a run, stop it at a random moment of a random phase, and look at what it left.

    Returns whether the stop came before the run was over.
    """
    signum, phase = draw.choice(_SIGNALS), draw.choice(PHASES)
    nth = draw.randint(1, _MOST_TIMES[phase])
    delay = draw.random() * _LONGEST.get(phase, _SHORT)
    watch, last = Watch(), runs / run.last
    before = step_of(last)
    watch.saved.value = before
    process = fork(partial(watched, run, runs, watch), log)
    deadline = time.monotonic() + HANG
    if finished(process, deadline, lambda: watch.times(phase) >= nth) is not None:
        return False
    time.sleep(delay)
    saved, begun = watch.saved.value, before + watch.times("step")
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
    """Stop trainings so often, every third of them a fine-tuning.

    The folders of those with faults are kept.
    """
    folder = Path(tempfile.mkdtemp(prefix="run", dir=folder))
    runs, wholes = _whole_runs(folder)
    draw, stops = random.Random(seed), 0
    for number in itertools.count():
        if stops >= count or time.monotonic() > deadline:
            break
        run, place = runs[number % len(runs)], folder / f"case{number:04d}"
        place.mkdir()
        case = try_run(run, wholes[run.name], place, draw)
        stops += len(case.stops)
        for signum, phase in case.stops:
            tally.add(f"{run.name}, {signum}", case.faults)
            tally.add(f"{run.name}, while in {phase}", case.faults)
        if case.faults:
            logger.warning("%s: %s", place, case)
        else:
            shutil.rmtree(place)


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
