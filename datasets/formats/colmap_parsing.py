"""Taking binary and text files apart without believing them."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any


class Malformed(Exception):
    """What stands there is not what the format says; the caller knows the file."""


class Cursor:
    """Goes through a little-endian binary file."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._offset = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        """Unpack values in the notation of ``struct``."""
        try:
            values = struct.unpack_from(f"<{layout}", self._content, self._offset)
        except struct.error:
            raise self._ends_early() from None
        self._offset += struct.calcsize(f"<{layout}")
        return values

    def count(self, least_bytes: int) -> int:
        """Read how many things follow, each of at least so many bytes."""
        number = self.take("Q")[0]
        if number * least_bytes > len(self._content) - self._offset:
            raise Malformed(
                f"{number} entries are promised at byte {self._offset - 8}, and "
                f"{len(self._content) - self._offset} bytes follow; the file is cut or damaged"
            )
        return number

    def string(self) -> str:
        """Read up to the next zero byte."""
        end = self._content.find(b"\0", self._offset)
        if end < 0:
            raise self._ends_early()
        text = self._content[self._offset : end].decode("utf-8")
        self._offset = end + 1
        return text

    def skip(self, count: int) -> None:
        """Pass over bytes."""
        if count > len(self._content) - self._offset:
            raise self._ends_early()
        self._offset += count

    def require_end(self) -> None:
        """Refuse a file that goes on."""
        if self._offset != len(self._content):
            raise Malformed(f"it has {len(self._content)} bytes, {self._offset} were expected")

    def _ends_early(self) -> Malformed:
        return Malformed(f"it ends early, at byte {len(self._content)}")


def content_lines(text: str) -> Iterator[str]:
    """Yield the lines that are neither blank nor comments."""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield stripped


def integers(words: Sequence[str]) -> list[int]:
    """Read whole numbers that are not negative."""
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) < 20):
            raise Malformed(f"expected a whole number, found {word[:40]!r}")
    return [int(word) for word in words]


def finite_numbers(words: Sequence[str], count: int) -> tuple[float, ...]:
    """Read exactly so many finite numbers."""
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError as error:
        raise Malformed(str(error)[:120]) from error
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise Malformed(f"expected {count} finite numbers, found {' '.join(words)[:80]!r}")
    return numbers
