"""Errors and stops that programs report in one line."""

from __future__ import annotations

import signal
from pathlib import Path


class UserError(Exception):
    """Bad input: the message names the file, the value and the remedy.

    Entry scripts print the message alone and exit with status 2; anything else is a defect of
    ours and keeps its traceback.
    """


class NonFiniteTrainingError(RuntimeError):
    """Gradients stayed non-finite for too many steps."""


class TrainingInterrupted(Exception):  # noqa: N818
    """The run was asked to stop by a signal and has saved."""

    def __init__(self, signum: int, path: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; resume with --ckpt {path}")
        self.signum = signum
