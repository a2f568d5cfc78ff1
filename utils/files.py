"""Atomic writing, exclusive folders, and reading of files whose content is not trusted."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import pickle
import reprlib
import shlex
import struct
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UserError, first_line

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

LOCK_NAME = ".lock"
ZIP_MAGIC = b"PK\x03\x04"
ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, OverflowError, EOFError, struct.error)
READ_ERRORS = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, MemoryError),
    *(LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, struct.error),
    *(SyntaxError, NameError, zlib.error),
)
"""Raised by readers on damaged or hostile files, ``SyntaxError`` by Pillow's for PNG, ``NameError``
by trimesh's for PLY; ``RecursionError`` is a ``RuntimeError``."""
_NPZ_ERRORS = (
    *(*ZIP_ERRORS, zlib.error, tokenize.TokenError, RuntimeError, LookupError, TypeError),
    *(SyntaxError, MemoryError),
)
_ARCHIVE_MAGICS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zX": "xz", b"7z\xbc\xaf": "7-Zip"}
PARTIAL_PREFIX, _COUNTER = ".partial-", itertools.count()
_PROBE_BYTES = 4096
_MAX_JSON_BYTES = 1 << 25
_REPOSITORY = Path(__file__).resolve().parents[1]


@contextmanager
def atomic_write(path: str | Path, remedy: str = "") -> Iterator[Path]:
    """Yield a temporary file that replaces ``path`` on success; on failure nothing changes.

    The temporary file lies beside ``path``, has its suffix and is private to this process. Missing
    folders are created. ``remedy`` ends the message of the error if the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f"{PARTIAL_PREFIX}{os.getpid()}-{next(_COUNTER)}-{path.name}")
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


def remove_partial_files(folder: Path) -> None:
    """Remove, recursively, temporary files of ``atomic_write`` whose process has ended."""
    for partial in folder.rglob(f"{PARTIAL_PREFIX}*-*"):
        process = partial.name.removeprefix(PARTIAL_PREFIX).partition("-")[0]
        if process.isdecimal() and partial.is_file() and not _is_running(int(process)):
            with contextlib.suppress(OSError):
                partial.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        # A process of another user cannot be signalled.
        return True
    return True


def write_text(path: str | Path, text: str, remedy: str = "") -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path, remedy) as partial:
        partial.write_text(text, encoding="utf-8")


def set_aside(path: Path) -> None:
    """Rename the file of an earlier run, if there is one, to ``last.1.ckpt``, ``last.2.ckpt``..."""
    if not path.exists():
        return
    names = (path.with_name(f"{path.stem}.{n}{path.suffix}") for n in itertools.count(1))
    unused = next(name for name in names if not name.exists())
    path.replace(unused)
    logger.warning("%s is of an earlier run and was renamed to %s", path, unused.name)


@contextmanager
def locked_folder(folder: Path, remedy: str) -> Iterator[None]:
    """Hold an exclusive lock on a folder; ``UserError`` if another process holds it.

    The operating system releases the lock when the process ends for any reason. Child processes do
    not inherit it.
    """
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"{folder}: cannot be locked ({error.strerror}). {remedy}") from error
    try:
        if not _lock(descriptor, folder):
            owner = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            raise UserError(f"{folder}: another run is writing to it (process {owner}). {remedy}")
        # The lock holds even if the disk has no space for the process number.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl  # Does not exist on Windows.

    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        # Some network file systems do not support locks.
        logger.warning("%s: cannot be locked (%s): start no second run in it", folder, error)
    return True


def from_repository(path: str | Path) -> Path:
    """Return ``path``, or the path inside the repository if only that one exists.

    Makes default paths such as ``ckpts`` independent of the working directory.
    """
    path = Path(path)
    inside = _REPOSITORY / path
    # Unlike Path.exists, os.path.exists accepts names that are too long for a file.
    return inside if not os.path.exists(path) and os.path.exists(inside) else path


def shell_command(script: str, *arguments: object) -> str:
    """Return the command for ``view.py`` or ``-m apps.compare`` in the working directory."""
    words = shlex.join(map(str, arguments))
    if Path.cwd() == _REPOSITORY:
        return f"python {script} {words}"
    if script.startswith("-m "):
        return f"PYTHONPATH={shlex.quote(str(_REPOSITORY))} python {script} {words}"
    return f"python {shlex.quote(str(_REPOSITORY / script))} {words}"


def check_size(path: Path, max_bytes: int, kind: str) -> None:
    """Raise ``UserError`` for an oversized file, ``OSError`` for a missing one, before reading."""
    if path.stat().st_size > max_bytes:
        raise UserError(f"{path}: larger than any {kind} ({max_bytes} bytes at most).")


def read_json(path: Path, kind: str, remedy: str = "") -> dict[str, Any]:
    """Read a JSON object from a file of bounded size.

    ``kind`` names the file in error messages; ``remedy`` ends them.
    """
    try:
        check_size(path, _MAX_JSON_BYTES, kind)
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; expected a {kind}. {remedy}".rstrip()) from error
    except (OSError, ValueError, RecursionError) as error:
        problem = f"{path}: cannot read the {kind} ({first_line(error)})."
        raise UserError(f"{problem} {remedy}".rstrip()) from error
    if not isinstance(content, dict):
        problem = f"{path}: expected a {kind}, which is a JSON object, not {reprlib.repr(content)}."
        raise UserError(f"{problem} {remedy}".rstrip())
    return content


def whole_number(value: object) -> int:
    """Return a whole number of JSON content; raises ``ValueError`` for any other value."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"expected a whole number, found {reprlib.repr(value)}")
    return value


def read_arrays(path: Path, max_bytes: int) -> dict[str, np.ndarray]:
    """Read an ``.npz`` file of bounded unpacked size.

    Raises ``OSError`` for a missing and ``ValueError`` for a damaged or oversized file.
    """
    import numpy as np  # Imported on use: --help must not wait for it.

    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
        if declared > max_bytes:
            raise ValueError(f"it declares {declared} bytes of data, {max_bytes} at most are read")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except _NPZ_ERRORS as error:
        raise ValueError(first_line(error)) from error


def check_output_file(path: str | Path, flag: str) -> Path:
    """Create the folder of an output file and check that it is writable, before computing."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; {flag} names a file.")
    check_output_folder(path.parent, flag)
    return path


def check_output_folder(folder: str | Path, flag: str = "--save_dir") -> Path:
    """Create a folder and check that it is writable."""
    folder = Path(folder)
    probe = folder / f".writable-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # Not an empty file, which can be created on a full disk.
            probe.write_bytes(bytes(_PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot write here ({error.strerror}); choose another folder with {flag}."
        ) from error
    return folder


def describe_placeholder(path: Path) -> str | None:
    """Describe a Git LFS pointer, a web page or an archive found in place of a file, else None."""
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError:
        return None
    text = head.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself; fetch it with git lfs pull."
    if text.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not the file itself; download it again from a direct link."
    for magic, kind in _ARCHIVE_MAGICS.items():
        if head.startswith(magic):
            return f"is packed ({kind}); unpack it and give the file that is in it."
    return _describe_zip(path) if head.startswith(ZIP_MAGIC) else None


def _describe_zip(path: Path) -> str | None:
    """Describe a zip archive unless it is one of ``torch.save``, complete or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return None
    if not names or any(name.endswith("data.pkl") or "/data/" in name for name in names):
        return None
    arguments = f"{shlex.quote(str(path))} {shlex.quote(str(path.parent))}"
    return (
        f"is an archive that holds {names[0][:80]}; unpack it, python -m zipfile -e {arguments}, "
        "and give that."
    )
