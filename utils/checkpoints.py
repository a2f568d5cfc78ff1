"""Checkpoint files: written atomically, read without running code.

A file is first written beside its destination and then renamed, so a run that is killed at any
moment leaves the previous whole file. Files hold tensors and plain containers only and are always
read with ``weights_only=True``: an untrusted checkpoint cannot run code.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from utils.errors import UserError

logger = logging.getLogger(__name__)

EPOCH_PLACEHOLDER = "{epoch:02d}"


def save_atomically(content: dict[str, Any], path: str | Path) -> None:
    """Write ``content`` so that ``path`` holds either the old file or the whole new one.

    Raises:
        UserError: The folder cannot be written or the disk is full; the old file is untouched.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        # torch.save reports a failed write as a RuntimeError of its zip writer.
        with contextlib.suppress(OSError):
            partial.unlink()
        whole = f"the previous {path.name} is untouched" if path.exists() else "nothing was written"
        raise UserError(
            f"{path}: cannot save the checkpoint ({error}); {whole}. "
            "Free space or choose another folder with --save_dir, then resume with --ckpt."
        ) from error


def load_safely(path: str | Path, map_location: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint as plain data.

    Raises:
        UserError: The file is missing, not a checkpoint, truncated, or holds anything but tensors
            and plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint{_nearby(path)}")
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: refused, it is not a plain checkpoint (tensors and plain containers only): "
            f"{_first_line(error)}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as a checkpoint, it is truncated or of another kind "
            f"({_first_line(error)})"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a dict, found {type(content).__name__}")
    return content


def resolve_checkpoint(path: str) -> Path:
    """Turn a ``--ckpt`` argument into a file.

    A literal ``{epoch:02d}`` stands for the newest epoch that has a match; a folder stands for the
    newest ``.ckpt`` in it.

    Raises:
        UserError: Nothing matches; names what is there instead.
    """
    if EPOCH_PLACEHOLDER in path:
        return _newest_epoch(path)
    if Path(path).is_dir():
        files = sorted(Path(path).glob("*.ckpt"), key=lambda file: file.stat().st_mtime)
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
    root = Path(head).parent
    pattern = re.compile(re.escape(head) + r"(\d+)" + re.escape(tail))
    matches = []
    for file in root.rglob("*") if root.is_dir() else ():
        found = pattern.fullmatch(str(file) if not head.startswith("./") else f"./{file}")
        if found:
            matches.append((int(found.group(1)), file))
    if not matches:
        raise UserError(f"{path}: no epoch matches{_nearby(Path(head))}")
    newest = max(matches)[1]
    return resolve_checkpoint(str(newest))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _nearby(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return f" (the folder {folder} does not exist)"
    # No deeper than a run's own folders: somebody's whole home may lie below.
    levels = ("*.ckpt", "*/*.ckpt", "*/*/*.ckpt")
    found = [str(file) for level in levels for file in sorted(folder.glob(level))][:5]
    return f"; found there: {', '.join(found)}" if found else f" (no .ckpt file under {folder})"
