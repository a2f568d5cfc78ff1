"""Lists of the scenes of a split, which data folders have of their own, a name a line.

This module does not import torch.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from utils.errors import UserError
from utils.files import check_size

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
_LIST_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("lists/train.txt", "training_list.txt", "BlendedMVS_training.txt"),
    "val": ("lists/val.txt", "lists/test.txt", "validation_list.txt", "BlendedMVS_validation.txt"),
    "test": ("lists/test.txt", "lists/val.txt", "validation_list.txt", "BlendedMVS_validation.txt"),
}
_SCAN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MAX_BYTES = 1 << 24
_MAX_NAME = 200


def find_scene_list(root: Path, split: Split) -> Path | None:
    """Return the list of a split's scenes that a data folder has of its own."""
    paths = [root / name for name in _LIST_NAMES[split]]
    return next((path for path in paths if path.is_file()), None)


def read_scene_list(path: Path, plain_names: bool = False) -> list[str]:
    """Read names of scene folders, one a line; with ``plain_names`` only such as scan1."""
    lines = content_lines(path)
    for number, line in lines:
        inside = len(line) <= _MAX_NAME and not Path(line).is_absolute()
        if not inside or ".." in Path(line).parts:
            raise UserError(f"{path}, line {number}: expected a folder, found {line[:80]!r}.")
        if plain_names and not _SCAN_NAME.fullmatch(line):
            raise UserError(
                f"{path}, line {number}: expected a scan such as 'scan1': {line[:80]!r}."
            )
    if not lines:
        raise UserError(f"{path}: the list names no scene.")
    return list(dict.fromkeys(line for _, line in lines))


def content_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that hold more than a comment, each with its number."""
    try:
        check_size(path, _MAX_BYTES, "list")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the list ({error}).") from error
    lines = enumerate((line.split("#")[0].strip() for line in text.splitlines()), start=1)
    return [(number, line) for number, line in lines if line]
