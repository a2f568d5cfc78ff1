"""Text files that name scenes, one a line, or rank the neighbours of views."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from utils.errors import UserError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

DEFAULT_LISTS = Path(__file__).resolve().parents[1] / "configs" / "lists"
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
    """Read names of scene folders, one a line; ``#`` begins a comment.

    Args:
        path: The list.
        plain_names: Whether only names such as scan1 are allowed, as DTU has them.
    """
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


def read_pairs(path: Path) -> dict[int, list[int]]:
    """Read MVSNet's ``pair.txt``: for each view its neighbours, best first."""
    lines = content_lines(path)
    pairs: dict[int, list[int]] = {}
    for (id_number, id_line), (number, line) in zip(lines[1::2], lines[2::2], strict=False):
        try:
            view = int(id_line)
        except ValueError as error:
            raise UserError(
                f"{path}, line {id_number}: expected a view: {id_line[:80]!r}."
            ) from error
        try:
            pairs[view] = _parse_neighbours(line.split())
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: expected a count, then as many pairs of view and score: "
                f"{line[:80]!r}."
            ) from error
    if not lines or lines[0][1] != str(len(pairs)) or len(lines) != 1 + 2 * len(pairs):
        raise UserError(f"{path}: the first line must count the views; {len(pairs)} follow it.")
    return pairs


def content_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that hold more than a comment, each with its number."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: larger than any list ({_MAX_BYTES} bytes at most).")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the list ({error}).") from error
    lines = enumerate((line.split("#")[0].strip() for line in text.splitlines()), start=1)
    return [(number, line) for number, line in lines if line]


def _parse_neighbours(words: Sequence[str]) -> list[int]:
    neighbours = [int(word) for word in words[1::2]]
    scores = [float(word) for word in words[2::2]]
    if not len(neighbours) == len(scores) == int(words[0]):
        raise ValueError("count and content differ")
    return neighbours
