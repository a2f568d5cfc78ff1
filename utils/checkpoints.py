"""Checkpoint files: written atomically, verified, and read without running code from them."""

from __future__ import annotations

import glob
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import UserError, first_line
from utils.files import (
    PARTIAL_PREFIX,
    READ_ERRORS,
    ZIP_ERRORS,
    ZIP_MAGIC,
    atomic_write,
    describe_placeholder,
    from_repository,
)

_EPOCH_PLACEHOLDER = "{epoch:02d}"
_DIRECTORY_ATTRIBUTE = 0x10
"""Attribute of directories in MS-DOS file systems."""
_CHUNK = 1 << 20
"""Bytes read at a time."""


def save_atomically(content: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint so that ``path`` holds either the old file or the complete new one."""
    import torch  # Imported on use: --help must not wait for it.

    path = Path(path)
    old = f"The previous {path.name} is untouched" if path.exists() else "Nothing was written"
    remedy = "free space or choose another folder with --save_dir, then resume with --ckpt."
    with atomic_write(path, f"{old}; {remedy}") as partial:
        try:
            torch.save(content, partial)
        except RuntimeError as error:
            # PyTorch's zip writer reports a failed write by an assertion on its own code.
            free = shutil.disk_usage(path.parent).free
            raise OSError(f"{free >> 20} MiB are free on the disk") from error


def load_safely(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; tensors and plain containers only."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint{_describe_nearby(path)}")
    try:
        content = load_tensors(path)
    except READ_ERRORS as error:
        if placeholder := describe_placeholder(path):
            raise UserError(f"{path}: {placeholder}") from error
        problem = "cannot be read as a checkpoint, it is damaged, truncated or of another kind"
        reason = first_line(error)
        if isinstance(error, pickle.UnpicklingError):
            problem = "refused, it is not a plain checkpoint (tensors and plain containers only)"
            # The first line of PyTorch's message advises to disable this protection.
            name = re.search(r"GLOBAL ([\w.]+)", str(error))
            reason = f"it holds {name[1]}" if name else "it is damaged or of another kind"
        remedy = "Copy it again from where it comes from, or give an earlier one."
        raise UserError(f"{path}: {problem} ({reason}). {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a dict, found {type(content).__name__}")
    return content


def load_tensors(path: Path) -> object:
    """Read tensors and plain containers to the CPU; raises ``READ_ERRORS``."""
    import torch

    # Opened once: a training run may replace the file at any time.
    with path.open("rb") as file:
        check_archive(file)
        file.seek(0)
        content = torch.load(file, map_location="cpu", weights_only=True)
        _check_tensor_sizes(content, os.fstat(file.fileno()).st_size)
    return content


def check_archive(file: BinaryIO) -> None:
    """Verify sizes and checksums of a file written by ``torch.save``, which ``torch.load`` skips.

    Raises ``ValueError``. Sizes are compared with the file's size before any entry is read.
    Files of early PyTorch versions are not zip archives and have no checksums; they pass.
    """
    if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
        return
    try:
        with zipfile.ZipFile(file) as archive:
            _check_entries(archive.infolist(), os.fstat(file.fileno()).st_size)
            for entry in archive.infolist():
                with archive.open(entry) as stream:
                    # The checksum is compared at the end of the entry.
                    while stream.read(_CHUNK):
                        pass
    except ZIP_ERRORS as error:
        raise ValueError(first_line(error)) from error


def _check_entries(entries: list[zipfile.ZipInfo], size_on_disk: int) -> None:
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ValueError(f"{entry.filename!r} in it is compressed, which torch.save never does")
        if entry.external_attr & _DIRECTORY_ATTRIBUTE:
            # PyTorch would leave the memory of this tensor uninitialised.
            raise ValueError(f"{entry.filename!r} in it is marked as a folder")
    if len({entry.filename for entry in entries}) != len(entries):
        raise ValueError("two of its entries have the same name")
    declared = sum(entry.file_size for entry in entries)
    if declared > size_on_disk:
        raise ValueError(f"it declares {declared} bytes of data, but has {size_on_disk}")


def _check_tensor_sizes(content: object, size_on_disk: int) -> None:
    """Refuse tensors larger than the file, for example expanded views of a single number."""
    import torch

    visited, pending = set(), [content]
    while pending:
        part = pending.pop()
        if isinstance(part, torch.Tensor):
            declared = part.numel() * part.element_size()
            if declared > size_on_disk:
                raise ValueError(f"a tensor declares {declared} bytes, the file has {size_on_disk}")
        elif isinstance(part, dict | list | tuple) and id(part) not in visited:
            # A container can hold another many times, or itself.
            visited.add(id(part))
            pending.extend(part.values() if isinstance(part, dict) else part)


def resolve_checkpoint(path: str) -> Path:
    """Return the file that a ``--ckpt`` argument names.

    ``{epoch:02d}`` in the path stands for the newest epoch; a folder for its newest ``.ckpt``.
    """
    if _EPOCH_PLACEHOLDER in path:
        return _newest_epoch(path)
    resolved = from_repository(path)
    if resolved.is_dir():
        files = sorted(_complete_files(resolved, "*.ckpt"), key=lambda file: file.stat().st_mtime)
        if not files:
            raise UserError(f"{path}: a folder without .ckpt files{_describe_nearby(resolved)}")
        return files[-1]
    if not resolved.is_file():
        raise UserError(
            f"{path}: no such checkpoint{_describe_nearby(resolved)}; "
            "--ckpt takes a file, or a folder of them"
        )
    return resolved


def _newest_epoch(path: str) -> Path:
    head, tail = path.split(_EPOCH_PLACEHOLDER, 1)
    files = glob.glob(f"{glob.escape(head)}*{glob.escape(tail)}")
    numbers = [file.removeprefix(head).removesuffix(tail) for file in files]
    epochs = {int(n): file for n, file in zip(numbers, files, strict=True) if n.isdecimal()}
    if not epochs:
        raise UserError(f"{path}: no epoch matches{_describe_nearby(Path(head))}")
    return resolve_checkpoint(epochs[max(epochs)])


def _describe_nearby(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return f" (the folder {folder} does not exist)"
    # At the depth of a run's folders only: the folder may be a home directory.
    patterns = ("*.ckpt", "*/*.ckpt", "*/*/*.ckpt")
    files = [
        str(file) for pattern in patterns for file in sorted(_complete_files(folder, pattern))
    ][:5]
    return f"; nearby are {', '.join(files)}" if files else f" (no .ckpt file under {folder})"


def _complete_files(folder: Path, pattern: str) -> list[Path]:
    """Return matching files, without those that are still being written."""
    return [file for file in folder.glob(pattern) if not file.name.startswith(PARTIAL_PREFIX)]
