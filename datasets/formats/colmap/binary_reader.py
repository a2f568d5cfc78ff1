"""Reading of binary files whose declared sizes are checked before memory is allocated."""

from __future__ import annotations

import os
import struct
from typing import Any, BinaryIO

MAX_NAME = 1024
"""Characters of a string."""


class Malformed(Exception):
    """The content of a file does not follow its format; the message does not name the file."""


class BinaryReader:
    """Reads values from a binary file and checks that enough bytes are left."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._offset = 0

    @property
    def bytes_left(self) -> int:
        """Bytes after the current position."""
        return self._size - self._offset

    def take(self, layout: str) -> tuple[Any, ...]:
        """Read values in the notation of ``struct``."""
        size = struct.calcsize(f"<{layout}")
        content = self._file.read(size) if size <= self.bytes_left else b""
        if len(content) < size:
            raise self._truncated()
        self._offset += size
        return struct.unpack(f"<{layout}", content)

    def take_count(self, min_entry_bytes: int) -> int:
        """Read a number of entries that follow."""
        count = self.take("Q")[0]
        if count * min_entry_bytes > self.bytes_left:
            raise Malformed(
                f"{count} entries are declared at byte {self._offset - 8}, but "
                f"{self.bytes_left} bytes follow; the file is truncated or damaged"
            )
        return count

    def take_string(self) -> str:
        """Read up to the next zero byte."""
        text, end, _ = self._file.read(4 * MAX_NAME).partition(b"\0")
        if not end:
            raise self._truncated()
        self.skip(len(text) + 1)
        return text.decode("utf-8")

    def skip(self, size: int) -> None:
        """Move forward, by no more than ``bytes_left``."""
        self._offset = self._file.seek(self._offset + size)

    def _truncated(self) -> Malformed:
        return Malformed(f"it ends early, after {self._size} bytes")
