"""Warnings about the files of a data set. This module does not import torch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

_MAX_NAMES = 3
_LOG = logging.getLogger(__name__)


@lru_cache(maxsize=4096)
def warn_once(message: str) -> None:
    """Log a warning once per process, however often a scene is opened."""
    _LOG.warning("%s", message)


def warn_of_unused_keys(keys: Iterable[str], path: Path) -> None:
    """Name the keys of a file that are not used, once for all scenes of a data set."""
    if names := join_names(sorted(keys)):
        data_set = path.resolve().parent.parent
        warn_once(f"{path.name} of the scenes in {data_set}: these keys are not used: {names}")


def join_names(names: Sequence[str]) -> str:
    """Join the first three names, with an ellipsis for the rest."""
    rest = ", ..." if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + rest
