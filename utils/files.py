"""Writing files whole or not at all, and proving beforehand that they can be written."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError

logger = logging.getLogger(__name__)


@contextmanager
def written_whole(path: str | Path, remedy: str = "") -> Iterator[Path]:
    """Yield a file to write; on success it becomes ``path``, on failure nothing changes.

    It has the same suffix, and its folder is made if need be. ``remedy`` ends the error message.
    """
    path = Path(path)
    partial = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written ({reason}). {remedy}".rstrip()) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write_text(path: str | Path, text: str, remedy: str = "") -> None:
    """Write a text file, whole or not at all, as UTF-8."""
    with written_whole(path, remedy) as partial:
        partial.write_text(text, encoding="utf-8")


def check_output_file(path: str | Path, flag: str) -> Path:
    """Make a file's folder and prove that the file can be written; ``flag`` is what names it."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; {flag} names a file.")
    check_output_folder(path.parent, flag)
    return path


def check_output_folder(folder: str | Path, flag: str = "--save_dir") -> Path:
    """Make a folder and prove that files can be written there."""
    folder = Path(folder)
    probe = folder / f".writable-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot write here ({error.strerror}); choose another place with {flag}."
        ) from error
    return folder


def set_aside(path: Path) -> None:
    """Rename a file that another run left where this one will write: ``last.1.ckpt``, and so on."""
    if not path.exists():
        return
    names = (path.with_name(f"{path.stem}.{n}{path.suffix}") for n in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    path.replace(aside)
    logger.warning("%s is of an earlier run: it is %s now", path, aside.name)
