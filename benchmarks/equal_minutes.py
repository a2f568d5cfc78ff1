"""Train several models equally long on the same data: each is timed first, then trained.

For example: python -m benchmarks.equal_minutes --config configs/mini_procedural.txt --min_sources 3
--max_sources 3 --minutes 20. Every flag of general training counts; the validations (--epochs)
and the schedule of the learning rate are spread over the minutes. Runs are named
EXPNAME_MODEL, those that only took the time EXPNAME_MODEL_timing.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.baselines.config import ModelName
from training.config import GeneralTrainingConfig
from training.general import run_general_training
from utils.config import command
from utils.errors import UserError
from utils.settings import Count, Positive

_TIMED_BATCHES = 60
"""Long enough for several rendered batches of worlds, each of which is visited several times."""


@dataclass(frozen=True)
class EqualMinutesConfig(GeneralTrainingConfig):
    """All settings: of general training, and of the comparison."""

    models: tuple[ModelName, ...] = ("vggt_nerf", "mvsnerf", "point_regression")
    """what is trained, one after the other"""
    minutes: Positive = 20.0
    """of training for each model, without its validations"""
    epochs: Count = 10
    """validations of each run, evenly spread"""


def run_benchmark(config: EqualMinutesConfig) -> str:
    """Train every model, and say where the runs are."""
    shared = {each.name: getattr(config, each.name) for each in fields(GeneralTrainingConfig)}
    # All before the first is trained: what a model refuses is said at once.
    plans = [_planned(shared, model, config.run.expname) for model in config.models]
    folders = []
    for plan in plans:
        timed = _train(plan, "_timing", 1, _TIMED_BATCHES)
        steps = round(60 * config.minutes / _seconds_per_step(timed))
        folders.append(str(_train(plan, "", config.epochs, max(steps // config.epochs, 1))))
    return "\n".join(["trained:", *folders])


def _planned(shared: dict[str, Any], model: ModelName, name: str) -> GeneralTrainingConfig:
    run = replace(shared["run"], model=model, expname=f"{name}_{model}")
    try:
        return GeneralTrainingConfig(**shared | {"run": run})
    except ValueError as error:
        raise UserError(str(error)) from error


def _train(plan: GeneralTrainingConfig, suffix: str, epochs: int, batches: int) -> Path:
    """Train and return the folder of the run."""
    run = replace(plan.run, expname=plan.run.expname + suffix, num_epochs=epochs)
    data = replace(plan.data, batches_per_epoch=batches)
    return run_general_training(replace(plan, run=run, data=data)).parent


def _seconds_per_step(folder: Path) -> float:
    """Read the mean over the last two windows that the run has logged: the first warms up."""
    events = EventAccumulator(str(folder / "logs"))
    events.Reload()
    values = [each.value for each in events.Scalars("train/seconds_per_step")][-2:]
    return sum(values) / len(values)


main = command(EqualMinutesConfig, run_benchmark, __doc__)

if __name__ == "__main__":
    sys.exit(main())
