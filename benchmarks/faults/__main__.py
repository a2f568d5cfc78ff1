"""Inject faults, limited in number and time, and tabulate the outcomes by class.

kills: tiny trainings stopped by signals. ranks: one of two training processes killed. flips: single
bits of checkpoints flipped. fuzz: damaged files for every parser.
For example: python -m benchmarks.faults kills --count 300
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import importlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from utils.config import command
from utils.settings import Count, Positive, Settings


@dataclass(frozen=True)
class FaultsConfig(Settings):
    """All settings of a campaign."""

    positional: ClassVar = "campaign"

    campaign: Literal["kills", "ranks", "flips", "fuzz"]
    """kills, ranks, flips or fuzz"""
    count: Count = 100
    """number of faults"""
    minutes: Positive = 10.0
    """time after which no further fault, or round of fuzz over all parsers, is begun"""
    seed: int = 0
    """seed of the random faults"""
    out: str = "results/faults"
    """folder for the files and logs that reproduce failures"""


def run_campaign(config: FaultsConfig) -> str:
    """Run a campaign and return its table."""
    import torch

    from benchmarks.faults.tally import Tally
    from utils.files import check_output_folder

    # A forked process has only the forking thread.
    torch.set_num_threads(1)
    folder = check_output_folder(Path(config.out) / config.campaign, "--out")
    start = time.monotonic()
    tally = Tally()
    campaign = importlib.import_module(f"benchmarks.faults.{config.campaign}")
    campaign.run(tally, config.count, start + 60 * config.minutes, config.seed, folder)
    flags = f"--count {config.count} --minutes {config.minutes:g} --seed {config.seed}"
    lines = [f"python -m benchmarks.faults {config.campaign} {flags}", *tally.lines()]
    return "\n".join([*lines, f"{time.monotonic() - start:.0f} s; failures are in {folder}"])


main = command(FaultsConfig, run_campaign, __doc__)

if __name__ == "__main__":
    # PyTorch, which is imported later, must not start threads before forks.
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(main())
