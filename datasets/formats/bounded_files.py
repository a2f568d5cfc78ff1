"""Files that are read piece by piece, of which no number is believed before it is seen to fit."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

MAX_NAME = 1024
"""Characters of a file's name."""
_MAX_LINE = 1 << 26
"""Characters: a line can hold all features of an image."""


class Malformed(Exception):
    """What stands there is not what the format says; the caller knows the file."""


class Cursor:
    """A place in a binary file."""

    def __init__(self, file: BinaryIO) -> None:
        """Begin at the beginning."""
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._offset = 0

    @property
    def bytes_left(self) -> int:
        """How many bytes follow."""
        return self._size - self._offset

    def take(self, layout: str) -> tuple[Any, ...]:
        """Unpack values in the notation of ``struct``."""
        size = struct.calcsize(f"<{layout}")
        content = self._file.read(size) if size <= self.bytes_left else b""
        if len(content) < size:
            raise self._ends_early()
        self._offset += size
        return struct.unpack(f"<{layout}", content)

    def skip(self, size: int) -> None:
        """Pass over so many bytes, which are known to be there."""
        self._offset = self._file.seek(self._offset + size)

    def count(self, least_bytes: int) -> int:
        """Read how many entries follow, each of at least so many bytes."""
        number = self.take("Q")[0]
        if number * least_bytes > self.bytes_left:
            raise Malformed(
                f"{number} entries are promised at byte {self._offset - 8}, and "
                f"{self.bytes_left} bytes follow; the file is cut or damaged"
            )
        return number

    def string(self) -> str:
        """Read up to the next zero byte."""
        text, end, _ = self._file.read(4 * MAX_NAME).partition(b"\0")
        if not end:
            raise self._ends_early()
        self.skip(len(text) + 1)
        return text.decode("utf-8")

    def _ends_early(self) -> Malformed:
        return Malformed(f"it ends early, within the {self._size} bytes that it has")


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file that are no comments, without the space around them."""
    with path.open(encoding="utf-8-sig") as file:
        while line := file.readline(_MAX_LINE):
            if len(line) == _MAX_LINE:
                raise Malformed(f"a line has more than {_MAX_LINE} characters")
            if not line.startswith("#"):
                yield line.strip()


def without_empty_end(lines: Iterator[str]) -> Iterator[str]:
    """Yield lines without the empty ones at the end."""
    empty = 0
    for line in lines:
        if line:
            yield from itertools.repeat("", empty)
            yield line
            empty = 0
        else:
            empty += 1
