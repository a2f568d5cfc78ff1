"""Inject faults, bounded in number and time, and print what came of them, class by class.

kills: stops of tiny trainings by signals. ranks: one of two processes that train together killed.
flips: single bits of checkpoints. fuzz: damaged files for every parser.
Example: python -m benchmarks.faults kills --count 300
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from utils.config import command
from utils.settings import Count, Positive, Settings


@dataclass(frozen=True)
class FaultsConfig(Settings):
    """Which faults, and how many."""

    campaign: Literal["kills", "ranks", "flips", "fuzz"]
    """kills, ranks, flips or fuzz"""
    count: Count = 100
    """faults to inject"""
    minutes: Positive = 10.0
    """time after which no further fault is injected"""
    seed: int = 0
    """seed of what is drawn"""
    out: str = "results/faults"
    """folder for what went wrong: files and logs that show it again"""

    positional: ClassVar[str] = "campaign"


def inject(config: FaultsConfig) -> str:
    """Run a campaign and return its table."""
    import torch

    from benchmarks.faults.table import Tally
    from utils.files import check_output_folder

    # Forked processes do not have the threads of this one.
    torch.set_num_threads(1)
    folder = check_output_folder(Path(config.out) / config.campaign, "--out")
    started = time.monotonic()
    deadline = started + 60 * config.minutes
    tally = Tally()
    campaign(config.campaign)(tally, config.count, deadline, config.seed, folder)
    seconds = time.monotonic() - started
    words = f"python -m benchmarks.faults {config.campaign} --count {config.count}"
    command_line = f"{words} --minutes {config.minutes:g} --seed {config.seed}"
    return "\n".join(
        [command_line, *tally.lines(), f"{seconds:.0f} s; what went wrong is in {folder}"]
    )


def campaign(name: str) -> Any:  # noqa: ANN401
    """Return the function of a campaign."""
    if name == "kills":
        from benchmarks.faults.kills import run_kills as run
    elif name == "ranks":
        from benchmarks.faults.ranks import run_ranks as run
    elif name == "flips":
        from benchmarks.faults.flips import run_flips as run
    else:
        from benchmarks.faults.fuzz import run_fuzz as run
    return run


main = command(FaultsConfig, inject, __doc__)
