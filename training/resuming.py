"""Resuming of a run: comparison of its settings, and the progress of Lightning's loops.

The loops' progress is recomputed from the number of steps: what Lightning saves depends on the hook
that saves, so that runs stopped within validations would take too many steps or skip a validation.
"""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from training.checkpointing import last_checkpoint
from training.config import GeneralTrainingConfig
from training.vggt.config import MiniTrainingConfig
from utils.config import differing_settings, settings_from_plain
from utils.errors import UserError, first_line, is_memory_error, short_repr

logger = logging.getLogger(__name__)


@contextmanager
def checked_restore(path: str | Path | None, trainer: pl.Trainer) -> Iterator[None]:
    """Turn errors while the state of a resumed run is restored into a ``UserError``."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if is_memory_error(error) or path is None or last_checkpoint(trainer).started:
            raise
        raise UserError(
            f"{path}: its state of training is damaged or of another run, and cannot be resumed "
            f"({type(error).__name__}: {first_line(error)}). Resume from an earlier file."
        ) from error


def check_resumed_settings(
    path: Path,
    config: GeneralTrainingConfig | MiniTrainingConfig,
    saved: dict[str, Any],
    structural: tuple[str, ...],
    ignored: tuple[str, ...],
    restart: str,
) -> None:
    """Refuse settings that contradict the checkpoint's ``saved`` ones, and warn of other changes.

    ``structural`` are prefixes of settings that must be equal, ``ignored`` of those that do not
    affect training. ``restart`` is the flag that starts a new run from existing weights.
    """
    theirs = settings_from_plain(type(config), saved, f"{path}: settings")
    differing = differing_settings(asdict(config), asdict(theirs))
    breaking = [row for row in differing if row[0].startswith(structural)]
    if breaking:
        raise UserError(
            f"{path}: cannot be resumed with other settings: {describe_differences(breaking)}. "
            f"Use the run's own settings, or {restart} to start a new run from its weights."
        )
    changed = [row for row in differing if not row[0].startswith(ignored)]
    if changed:
        logger.warning("resuming %s with changed settings: %s", path, describe_differences(changed))


def describe_differences(rows: list[tuple[str, Any, Any]]) -> str:
    """Format (name, our value, their value) rows in one line."""
    return ", ".join(
        f"{name}={short_repr(ours)} here, {short_repr(theirs)} there" for name, ours, theirs in rows
    )


def canonical_loops(loops: dict[str, Any], step: int, batches: int) -> dict[str, Any]:
    """Return the loops' progress after ``step`` steps, in epochs of ``batches`` steps.

    At the end of an epoch its validation is due, unless the saved ``loops`` count the epoch as
    processed.
    """
    if not isinstance(step, int) or step < 0:
        raise ValueError(f"its step is {reprlib.repr(step)}")
    epochs, within = divmod(step, batches)
    validation_due = within == 0 and _processed_epochs(loops) < epochs
    done = epochs - validation_due
    started = done + 1 if within or validation_due else done
    batches_taken = batches if validation_due else within
    # Lightning resumes a validation that is started but not processed.
    validations = _count(1, 0) if validation_due else _count(0, 0)
    fit = {
        "state_dict": {},
        "epoch_progress": {"total": _count(started, done), "current": _count(started, done)},
        # Lightning takes an empty epoch for a complete one and counts this step again.
        "epoch_loop.state_dict": {"_batches_that_stepped": step if within else step - 1},
        "epoch_loop.batch_progress": {
            "total": _count(step, step),
            "current": _count(batches_taken, batches_taken),
            "is_last_batch": validation_due,
        },
        "epoch_loop.scheduler_progress": {"total": _pair(step), "current": _pair(batches_taken)},
        "epoch_loop.automatic_optimization.optim_progress": {
            "optimizer": {
                "step": {"total": _pair(step), "current": _pair(batches_taken)},
                "zero_grad": {
                    "total": {**_pair(step), "started": step},
                    "current": {**_pair(batches_taken), "started": batches_taken},
                },
            }
        },
        "epoch_loop.val_loop.batch_progress": {
            "total": validations,
            "current": _count(0, 0),
            "is_last_batch": False,
        },
    }
    return {**loops, "fit_loop": fit}


def _processed_epochs(loops: dict[str, Any]) -> int:
    try:
        return int(loops["fit_loop"]["epoch_progress"]["total"]["processed"])
    except (KeyError, TypeError, ValueError):
        return 0


def _count(started: int, processed: int) -> dict[str, int]:
    return {"ready": started, "started": started, "processed": processed, "completed": processed}


def _pair(completed: int) -> dict[str, int]:
    return {"ready": completed, "completed": completed}
