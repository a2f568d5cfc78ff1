"""Counts of injected faults and their outcomes, and trials of runs that are stopped."""

from __future__ import annotations

import itertools
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.report import format_table

logger = logging.getLogger(__name__)
_COLUMNS = ("injected", "survived", "lost work", "hangs", "tracebacks", "memory", "other")
MAX_OCCURRENCES = {"start": 1, "step": 6, "save": 4, "validation": 4, "end": 1}
"""Approximate number of occurrences of each phase in a run; a stop waits for one of them."""
_MAX_DELAY = {"start": 0.4, "end": 0.15}
_SHORT_DELAY = 0.05


@dataclass
class Tally:
    """Numbers of faults by class and outcome."""

    rows: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, kind: str, failures: Collection[str], count: int = 1) -> None:
        """Count faults of a class with the names of their failures, if any."""
        row = self.rows.setdefault(kind, Counter(dict.fromkeys(_COLUMNS, 0)))
        row["injected"] += count
        row["survived"] += count * (not failures)
        for name in {name if name in _COLUMNS else "other" for name in failures}:
            row[name] += count

    def lines(self) -> Iterator[str]:
        """Yield the lines of the table."""
        yield from format_table(self.rows, [(name, name, 1.0, 0) for name in _COLUMNS])


@dataclass
class Trial:
    """A run that is stopped once or more, and its failures."""

    run: str
    stops: list[tuple[str, str]] = field(default_factory=list)
    """Cause and phase of each stop."""
    failures: set[str] = field(default_factory=set)


def max_delay(phase: str) -> float:
    """Return the largest delay of a stop after the beginning of a phase, in seconds."""
    return _MAX_DELAY.get(phase, _SHORT_DELAY)


def run_trials(
    tally: Tally, count: int, deadline: float, folder: Path, run_trial: Callable[[Path], Trial]
) -> None:
    """Run trials until ``count`` stops are injected; keep the folders of failed trials."""
    stops = 0
    for number in itertools.count():
        if stops >= count or time.monotonic() > deadline:
            break
        trial_folder = folder / f"trial{number:04d}"
        trial_folder.mkdir()
        trial = run_trial(trial_folder)
        stops += len(trial.stops)
        for cause, phase in trial.stops:
            tally.add(f"{trial.run}, {cause}", trial.failures)
            tally.add(f"{trial.run}, during {phase}", trial.failures)
        if trial.failures:
            logger.warning("%s: %s", trial_folder, trial)
        else:
            shutil.rmtree(trial_folder)
