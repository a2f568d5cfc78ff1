"""Files written whole or not at all, and checkpoints, which are read without running code.

This module does not import torch before it is needed.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import logging
import os
import pickle
import re
import reprlib
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.archives import check_archive, describe_packed
from utils.errors import UserError, first_line

_PARTIAL, _COUNTER = ".partial-", itertools.count()
EPOCH_PLACEHOLDER = "{epoch:02d}"
_PROBE = 4096
_MAX_JSON = 1 << 25
"""Bytes of a JSON file."""
_REPOSITORY = Path(__file__).resolve().parents[1]
_TAKE_ANOTHER = "Copy it again from where it comes from, or give an earlier one."
UNREADABLE = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, MemoryError),
    *(LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, struct.error),
)
"""What reading a damaged or hostile file raises; ``RecursionError`` is a ``RuntimeError``."""
logger = logging.getLogger(__name__)


@contextmanager
def written_whole(path: str | Path, remedy: str = "") -> Iterator[Path]:
    """Yield a file to write; on success it becomes ``path``, on failure nothing changes.

    The place is beside ``path``, has its suffix and is of this process alone; its folder is made if
    need be. ``remedy`` is what the error message says that the user can do if the file cannot be
    written.
    """
    path = Path(path)
    partial = path.with_name(f"{_PARTIAL}{os.getpid()}-{next(_COUNTER)}-{path.name}")
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
    """Remove what processes that were killed have begun to write in a folder and below it."""
    for partial in folder.rglob(f"{_PARTIAL}*-*"):
        process = partial.name.removeprefix(_PARTIAL).partition("-")[0]
        if process.isdecimal() and partial.is_file() and not _runs(int(process)):
            with contextlib.suppress(OSError):
                partial.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        # Of another user, for example.
        return True
    return True


def write_text(path: str | Path, text: str, remedy: str = "") -> None:
    """Write a text file, whole or not at all, as UTF-8."""
    with written_whole(path, remedy) as partial:
        partial.write_text(text, encoding="utf-8")


def from_repository(path: str | Path) -> Path:
    """Return a place that is read as it is given, or that in the repository if only that is there.

    Scripts find what lies beside them, such as ``ckpts``, from whatever folder they are started.
    """
    path = Path(path)
    inside = _REPOSITORY / path
    # These answer for names that no file can have, too.
    return inside if not os.path.exists(path) and os.path.exists(inside) else path


def check_size(path: Path, most: int, what: str) -> None:
    """Refuse a file that is larger than any of its kind, before it is read into memory.

    Raises ``OSError`` if there is no such file.
    """
    if path.stat().st_size > most:
        raise UserError(f"{path}: larger than any {what} ({most} bytes at most).")


def read_json(path: Path, what: str, remedy: str = "") -> dict[str, Any]:
    """Read the JSON object of a file; in memory it may take 24 times as many bytes.

    ``what`` names its kind; ``remedy`` ends the message of an error.
    """
    try:
        check_size(path, _MAX_JSON, what)
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; expected a {what}. {remedy}".rstrip()) from error
    except (OSError, ValueError, RecursionError) as error:
        problem = f"{path}: cannot read the {what} ({first_line(error)})."
        raise UserError(f"{problem} {remedy}".rstrip()) from error
    if not isinstance(content, dict):
        problem = f"{path}: expected a {what}, which is a JSON object, not {reprlib.repr(content)}."
        raise UserError(f"{problem} {remedy}".rstrip())
    return content


def check_output_file(path: str | Path, flag: str) -> Path:
    """Prove that the file of a flag can be written before anything is computed; make its folder."""
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
        try:
            # On a full disk, files without content can still be made.
            probe.write_bytes(bytes(_PROBE))
        finally:
            probe.unlink(missing_ok=True)
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


def save_atomically(content: dict[str, Any], path: str | Path) -> None:
    """Write ``content`` so that ``path`` holds either the old file or the whole new one."""
    import torch

    path = Path(path)
    old = f"The previous {path.name} is untouched" if path.exists() else "Nothing was written"
    remedy = "free space or choose another folder with --save_dir, then resume with --ckpt."
    with written_whole(path, f"{old}; {remedy}") as partial:
        try:
            torch.save(content, partial)
        except RuntimeError as error:
            # How its zip writer reports a failed write, in words about its own code.
            free = shutil.disk_usage(path.parent).free
            raise OSError(f"{free >> 20} MiB are free there") from error


def describe_placeholder(path: Path) -> str | None:
    """Say whether a file is not yet what it should be: a pointer, a web page or an archive."""
    try:
        with path.open("rb") as file:
            head = file.read(256).lstrip().lower()
    except OSError:
        return None
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself; fetch it with git lfs pull."
    if head.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not the file itself; download it again from a direct link."
    return describe_packed(path)


def load_tensors(path: Path) -> object:
    """Read tensors and plain containers, to the CPU; ``UNREADABLE`` is what this raises."""
    import torch

    # Opened once: a run may put another file there at any time.
    with path.open("rb") as file:
        check_archive(file)
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
        _check_tensors(content, os.fstat(file.fileno()).st_size)
    return content


def load_safely(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint, as tensors and plain containers only, to the CPU."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint{_nearby(path)}")
    try:
        content = load_tensors(path)
    except UNREADABLE as error:
        if placeholder := describe_placeholder(path):
            raise UserError(f"{path}: {placeholder}") from error
        what = "cannot be read as a checkpoint, it is damaged, truncated or of another kind"
        reason = first_line(error)
        if isinstance(error, pickle.UnpicklingError):
            what = "refused, it is not a plain checkpoint (tensors and plain containers only)"
            # PyTorch's own first line advises to read it without that protection.
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            reason = f"it holds {named[1]}" if named else "it is damaged or of another kind"
        raise UserError(f"{path}: {what} ({reason}). {_TAKE_ANOTHER}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a dict, found {type(content).__name__}")
    return content


def _check_tensors(content: object, size_on_disk: int) -> None:
    """Refuse tensors that declare more than the file holds, as views that repeat a number do."""
    import torch

    seen, waiting = set(), [content]
    while waiting:
        part = waiting.pop()
        if isinstance(part, torch.Tensor):
            declared = part.numel() * part.element_size()
            if declared > size_on_disk:
                raise ValueError(f"a tensor declares {declared} bytes, the file has {size_on_disk}")
        elif isinstance(part, dict | list | tuple) and id(part) not in seen:
            # A container can hold another many times, or itself.
            seen.add(id(part))
            waiting.extend(part.values() if isinstance(part, dict) else part)


def resolve_checkpoint(path: str) -> Path:
    """Turn a ``--ckpt`` argument into a file.

    A literal ``{epoch:02d}`` stands for the newest epoch that has a match; a folder stands for the
    newest ``.ckpt`` in it.
    """
    if EPOCH_PLACEHOLDER in path:
        return _newest_epoch(path)
    path = str(from_repository(path))
    if Path(path).is_dir():
        files = sorted(_checkpoints(Path(path), "*.ckpt"), key=lambda file: file.stat().st_mtime)
        if not files:
            raise UserError(f"{path}: a folder without .ckpt files{_nearby(Path(path))}")
        return files[-1]
    if not Path(path).is_file():
        raise UserError(
            f"{path}: no such checkpoint{_nearby(Path(path))}; "
            "--ckpt takes a file, or a folder of them"
        )
    return Path(path)


def _newest_epoch(path: str) -> Path:
    head, tail = path.split(EPOCH_PLACEHOLDER, 1)
    files = glob.glob(f"{glob.escape(head)}*{glob.escape(tail)}")
    numbers = [file.removeprefix(head).removesuffix(tail) for file in files]
    found = {int(n): file for n, file in zip(numbers, files, strict=True) if n.isdecimal()}
    if not found:
        raise UserError(f"{path}: no epoch matches{_nearby(Path(head))}")
    return resolve_checkpoint(found[max(found)])


def _nearby(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return f" (the folder {folder} does not exist)"
    # No deeper than the folders of a run: the folder may hold a whole home directory.
    levels = ("*.ckpt", "*/*.ckpt", "*/*/*.ckpt")
    found = [str(file) for level in levels for file in sorted(_checkpoints(folder, level))][:5]
    return f"; found there: {', '.join(found)}" if found else f" (no .ckpt file under {folder})"


def _checkpoints(folder: Path, pattern: str) -> list[Path]:
    """Return the files that are written to their end."""
    return [file for file in folder.glob(pattern) if not file.name.startswith(_PARTIAL)]
