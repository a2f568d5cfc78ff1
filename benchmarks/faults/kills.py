"""Trainings stopped at random moments; the resumed run must equal the uninterrupted one."""

from __future__ import annotations

import itertools
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

from benchmarks.faults.processes import HANG_SECONDS, PHASES, Watch, fork, run_in_fork, wait
from benchmarks.faults.tally import MAX_OCCURRENCES, Tally, Trial, max_delay, run_trials
from benchmarks.faults.tiny_runs import (
    TinyRun,
    differences,
    fine_tuning,
    general_training,
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

_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def run(tally: Tally, count: int, deadline: float, seed: int, folder: Path) -> None:
    """Stop trainings ``count`` times; every third is a fine-tuning."""
    folder = Path(tempfile.mkdtemp(prefix="run", dir=folder))
    data, log, reference_folder = folder / "data", folder / "log.txt", folder / "reference"
    run_in_fork(lambda: int(not write_data(data)), log)
    general = general_training(data)
    tuning = fine_tuning(data, reference_folder / general.last)
    references = {}
    for training in (general, tuning):
        run_in_fork(partial(training.resume, reference_folder), log)
        references[training.name] = training.result(reference_folder)
    turns, rng = itertools.cycle((general, general, tuning)), random.Random(seed)

    def run_trial(trial_folder: Path) -> Trial:
        training = next(turns)
        return _run_trial(training, references[training.name], trial_folder, rng)

    run_trials(tally, count, deadline, folder, run_trial)


def report_phases(watch: Watch) -> None:
    """Patch both trainings in this process, so that they report their phases to a watch."""
    for module in (GeneralModule, FineTuningModule):
        watch.wrap(module, "training_step", "step")
    watch.wrap(GeneralModule, "validation_step", "validation")
    watch.wrap(RunLog, "_validate", "validation")
    watch.wrap(RunLog, "finish", "end")
    watch.wrap(GeneralModule, "on_train_end", "end")
    for module in (checkpointing, run_log):
        watch.wrap(module, "save_atomically", "save")
    save = LastCheckpoint.save

    def counted_save(self: LastCheckpoint, trainer: pl.Trainer) -> None:
        save(self, trainer)
        watch.counts.saved = trainer.global_step

    LastCheckpoint.save = counted_save
    watch.enter("start")


def _resume_watched(run: TinyRun, runs: Path, watch: Watch) -> int:
    stop_at_once()
    report_phases(watch)
    return run.resume(runs)


def _run_trial(
    run: TinyRun, reference: Mapping[str, Any], folder: Path, rng: random.Random
) -> Trial:
    """Stop a run once or twice, let it finish, and compare it with the uninterrupted one."""
    trial, runs, log = Trial(run.name), folder / "runs", folder / "log.txt"
    try:
        for _ in range(rng.randint(1, 2)):
            if not _stop_once(run, runs, log, rng, trial):
                break
        process = fork(partial(run.resume, runs), log)
        if status := wait(process, time.monotonic() + 2 * HANG_SECONDS):
            trial.failures.add(f"exit {status}")
        else:
            trial.failures.update(differences(run.result(runs), reference))
    except TimeoutError:
        trial.failures.add("hangs")
    if "Traceback" in log.read_text():
        trial.failures.add("tracebacks")
    return trial


def _stop_once(run: TinyRun, runs: Path, log: Path, rng: random.Random, trial: Trial) -> bool:
    """Resume a run, stop it at a random moment of a random phase, and check what it has saved.

    Returns whether it was stopped before its end.
    """
    signum, phase = rng.choice(_SIGNALS), rng.choice(PHASES)
    occurrence = rng.randint(1, MAX_OCCURRENCES[phase])
    delay = rng.random() * max_delay(phase)
    watch, last = Watch.in_memory(), runs / run.last
    before = step_of(last)
    watch.counts.saved = before
    process = fork(partial(_resume_watched, run, runs, watch), log)
    deadline = time.monotonic() + HANG_SECONDS
    if wait(process, deadline, lambda: watch.occurrences(phase) >= occurrence) is not None:
        return False
    time.sleep(delay)
    saved, begun = watch.counts.saved, before + watch.occurrences("step")
    os.kill(process, signum)
    status = wait(process, time.monotonic() + HANG_SECONDS)
    if status == 0:
        return False
    trial.stops.append((signum.name, phase))
    if status not in (-signum, 128 + signum):
        trial.failures.add(f"exit {status}")
    if step_of(last) < (begun if status == 128 + signum and begun > before else saved):
        trial.failures.add("lost work")
    return True
