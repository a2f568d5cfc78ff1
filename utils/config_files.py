"""Files of settings, checked before the parser reads them: a fifo or a device has no end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from utils.files import from_repository

_MAX_BYTES = 1 << 20


def found_config_files(argv: Sequence[str]) -> list[str]:
    """Return flags with the files of ``--config`` as they are found, here or in the repository."""
    found = list(argv)
    for place, (word, before) in enumerate(zip(argv, ["", *argv], strict=False)):
        if before == "--config":
            found[place] = _find(word)
        elif word.startswith("--config="):
            found[place] = f"--config={_find(word.removeprefix('--config='))}"
    return found


def config_file_problem(argv: Sequence[str]) -> str | None:
    """Return what is wrong with a file that ``--config`` names, or None."""
    for path in _config_files(argv):
        if problem := _problem_of_file(path):
            return f"--config {path}: {problem}"
    return None


def _find(name: str) -> str:
    return str(from_repository(os.path.expanduser(os.path.expandvars(name))))


def _config_files(argv: Sequence[str]) -> Iterator[Path]:
    for word, after in pairwise([*argv, ""]):
        if word == "--config" and after:
            yield Path(after)
        elif word.startswith("--config="):
            yield Path(word.removeprefix("--config="))


def _problem_of_file(path: Path) -> str | None:
    """Say why a file cannot hold settings; a missing one is left to the parser."""
    if not os.path.exists(path):
        return None
    if not path.is_file():
        return "is no ordinary file; give one of `name = value` lines, as those in configs"
    if path.stat().st_size > _MAX_BYTES:
        return f"is larger than any file of settings ({_MAX_BYTES} bytes at most)"
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return f"cannot be read as text ({error}); save it as UTF-8"
    return None
