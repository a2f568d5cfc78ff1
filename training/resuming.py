"""Whether a run may go on from a checkpoint with the settings that it is given."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from utils.config import differing_settings
from utils.errors import UserError

logger = logging.getLogger(__name__)

Difference = tuple[str, Any, Any]
"""Dotted name of a setting, its value here and its value there."""


def check_resumed_settings(
    path: Path,
    ours: dict[str, Any],
    theirs: dict[str, Any],
    structural: tuple[str, ...],
    ignored: tuple[str, ...],
    restart: str,
) -> None:
    """Refuse settings that the saved state does not fit, and tell of other changes.

    Args:
        path: The checkpoint.
        ours: All settings of this run, as nested plain dicts.
        theirs: Those in the checkpoint.
        structural: Beginnings of the names of settings that decide what the saved state means.
        ignored: Beginnings of names that say nothing about the training.
        restart: The flag that starts a new run from the weights of another.

    Raises:
        UserError: A structural setting differs.
    """
    differing = differing_settings(ours, theirs)
    breaking = [row for row in differing if row[0].startswith(structural)]
    if breaking:
        raise UserError(
            f"{path}: cannot be resumed with other settings: {describe_differences(breaking)}. "
            f"Use the run's own settings, or {restart} to start a new run from its weights."
        )
    changed = [row for row in differing if not row[0].startswith(ignored)]
    if changed:
        logger.warning("resuming %s with changed settings: %s", path, describe_differences(changed))


def describe_differences(rows: list[Difference]) -> str:
    """Say in one line what differs."""
    return ", ".join(f"{name}={ours!r} here, {theirs!r} there" for name, ours, theirs in rows)
