"""Folders that one program at a time writes to."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError

LOCK_NAME = ".lock"
logger = logging.getLogger(__name__)


@contextmanager
def locked_folder(folder: Path, remedy: str) -> Iterator[None]:
    """Keep other programs out of a folder inside, or fail if one is in it; end with the remedy.

    The operating system frees the lock when the process ends, however it does. Processes that this
    one starts, as those that read data, do not hold it.
    """
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"{folder}: cannot be locked ({error.strerror}). {remedy}") from error
    try:
        if not _lock(descriptor, folder):
            owner = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            raise UserError(f"{folder}: another run is writing there (process {owner}). {remedy}")
        # Without space for the number, the lock holds all the same.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl  # Not on Windows.

    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        # Some file systems of networks have no locks.
        logger.warning("%s: cannot be locked (%s): start no second run in it", folder, error)
    return True
