"""Runs that are stopped again and again, and what came of each."""

from __future__ import annotations

import itertools
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.table import Tally

logger = logging.getLogger(__name__)
MOST_TIMES = {"start": 1, "step": 6, "save": 4, "validation": 4, "end": 1}
"""Of a phase in a run, about: a stop waits for one of them."""
_LONGEST = {"start": 0.4, "end": 0.15}
_SHORT = 0.05


def longest_wait(phase: str) -> float:
    """Return the seconds that a stop waits for at most when a phase has begun."""
    return _LONGEST.get(phase, _SHORT)


@dataclass
class Case:
    """One run that is stopped once or more, and what was wrong with it."""

    run: str
    stops: list[tuple[str, str]] = field(default_factory=list)
    """What stopped it, and in which phase."""
    faults: set[str] = field(default_factory=set)


def stop_runs(
    tally: Tally, count: int, deadline: float, folder: Path, one_case: Callable[[Path], Case]
) -> None:
    """Count the stops of cases, each in a folder of its own, which is kept if there are faults."""
    stops = 0
    for number in itertools.count():
        if stops >= count or time.monotonic() > deadline:
            break
        place = folder / f"case{number:04d}"
        place.mkdir()
        case = one_case(place)
        stops += len(case.stops)
        for cause, phase in case.stops:
            tally.add(f"{case.run}, {cause}", case.faults)
            tally.add(f"{case.run}, while in {phase}", case.faults)
        if case.faults:
            logger.warning("%s: %s", place, case)
        else:
            shutil.rmtree(place)
