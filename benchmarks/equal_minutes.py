"""Train several models for the same time on the same data: time each first, then train it.

For example: python -m benchmarks.equal_minutes --config configs/mini_procedural.txt --min_sources 3
--max_sources 3 --minutes 20. All flags of general training are accepted. Validations (--epochs)
and the learning-rate schedule are spread over the training time. The run of a model is named
EXPNAME_MODEL, the short run that measures its speed EXPNAME_MODEL_timing.
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
"""Enough for several rendered batches of worlds, each of which is used several times."""


@dataclass(frozen=True)
class EqualMinutesConfig(GeneralTrainingConfig):
    """All settings: those of general training, the models, and their training time."""

    models: tuple[ModelName, ...] = ("vggt_nerf", "mvsnerf", "point_regression")
    """models to train, one after the other"""
    minutes: Positive = 20.0
    """training time of each model, without validation"""
    epochs: Count = 10
    """validations of each run, evenly spaced"""


def run_benchmark(config: EqualMinutesConfig) -> str:
    """Train every model and return the folders of the runs."""
    shared = {each.name: getattr(config, each.name) for each in fields(GeneralTrainingConfig)}
    # Build all configs first, so that an invalid combination is reported before any training.
    plans = [_model_config(shared, model, config.run.expname) for model in config.models]
    folders = []
    for plan in plans:
        timed = _train(plan, "_timing", 1, _TIMED_BATCHES)
        steps = round(60 * config.minutes / _seconds_per_step(timed))
        folders.append(str(_train(plan, "", config.epochs, max(steps // config.epochs, 1))))
    return "\n".join(["trained:", *folders])


def _model_config(shared: dict[str, Any], model: ModelName, name: str) -> GeneralTrainingConfig:
    run = replace(shared["run"], model=model, expname=f"{name}_{model}")
    try:
        return GeneralTrainingConfig(**shared | {"run": run})
    except ValueError as error:
        raise UserError(str(error)) from error


def _train(config: GeneralTrainingConfig, suffix: str, epochs: int, batches: int) -> Path:
    """Train and return the folder of the run."""
    run = replace(config.run, expname=config.run.expname + suffix, num_epochs=epochs)
    data = replace(config.data, batches_per_epoch=batches)
    return run_general_training(replace(config, run=run, data=data)).parent


def _seconds_per_step(folder: Path) -> float:
    """Return the mean of the last two logged values, which exclude the warm-up."""
    events = EventAccumulator(str(folder / "logs"))
    events.Reload()
    values = [event.value for event in events.Scalars("train/seconds_per_step")][-2:]
    return sum(values) / len(values)


main = command(EqualMinutesConfig, run_benchmark, __doc__)

if __name__ == "__main__":
    sys.exit(main())
