"""Where Lightning's loops go on in a resumed run, from the number of steps alone.

What Lightning itself saves depends on the hook that saves, and resuming twice counts some of it
twice: a run that was stopped in two validations took more steps than planned, and one that was
stopped in its last validation was over without it.
"""

from __future__ import annotations

import reprlib
from typing import Any

_FIT = "epoch_loop."
_OPTIMISER = f"{_FIT}automatic_optimization.optim_progress"


def canonical_loops(loops: dict[str, Any], step: int, batches: int) -> dict[str, Any]:
    """Return the progress of a run after ``step`` steps, in epochs of so many ``batches``.

    A validation that is due is done first, unless ``loops``, as they were saved, say that it is
    over: Lightning counts an epoch as processed after it.
    """
    if not isinstance(step, int) or step < 0:
        raise ValueError(f"it says that step {reprlib.repr(step)} was its last")
    epochs, within = divmod(step, batches)
    due = within == 0 and _processed_epochs(loops) < epochs
    done = epochs - due
    # In the middle of an epoch, which an epoch without its validation is, too.
    begun = done + 1 if within or due else done
    taken = batches if due else within
    # A validation that has begun and is not processed is what Lightning goes back to.
    validation = {"total": _count(1, 0), "current": _count(0, 0)}
    over = {"total": _count(0, 0), "current": _count(0, 0)}
    fit = {
        "state_dict": {},
        "epoch_progress": {"total": _count(begun, done), "current": _count(begun, done)},
        # Lightning takes an empty epoch for a whole one, and counts this step once more.
        f"{_FIT}state_dict": {"_batches_that_stepped": step if within else step - 1},
        f"{_FIT}batch_progress": {
            "total": _count(step, step),
            "current": _count(taken, taken),
            "is_last_batch": due,
        },
        f"{_FIT}scheduler_progress": {"total": _pair(step), "current": _pair(taken)},
        _OPTIMISER: {
            "optimizer": {
                "step": {"total": _pair(step), "current": _pair(taken)},
                "zero_grad": {"total": _started(step), "current": _started(taken)},
            }
        },
        f"{_FIT}val_loop.batch_progress": {
            **(validation if due else over),
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


def _started(completed: int) -> dict[str, int]:
    return {**_pair(completed), "started": completed}


def _pair(completed: int) -> dict[str, int]:
    return {"ready": completed, "completed": completed}
