"""Zip archives, whose sizes are compared before memory is taken: of PyTorch and of NumPy."""

from __future__ import annotations

import os
import shlex
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from utils.errors import first_line

if TYPE_CHECKING:
    import numpy as np

_MAGIC = b"PK\x03\x04"
"""How PyTorch itself tells its archives from the files of early versions."""
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zX": "xz", b"7z\xbc\xaf": "7-Zip"}
"""How other archives begin."""
_FOLDER = 0x10
"""The attribute that MS-DOS gives folders."""
_CHUNK = 1 << 20
_UNREADABLE = (zipfile.BadZipFile, NotImplementedError, OverflowError, EOFError, struct.error)
_NO_ARRAYS = (
    *(*_UNREADABLE, zlib.error, tokenize.TokenError, RuntimeError, LookupError, TypeError),
    *(SyntaxError, MemoryError),
)


def read_arrays(path: Path, most_bytes: int) -> dict[str, np.ndarray]:
    """Read an ``.npz`` file that unpacks to no more than so many bytes.

    Raises ``OSError`` if there is no such file, and ``ValueError`` that says what is damaged in it.
    """
    import numpy as np  # Here, so that --help does not wait for it.

    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
        if declared > most_bytes:
            raise ValueError(f"it declares {declared} bytes of data, {most_bytes} at most are read")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except _NO_ARRAYS as error:
        raise ValueError(first_line(error)) from error


def describe_packed(path: Path) -> str | None:
    """Say how to unpack a file that was packed once more, or return None."""
    with path.open("rb") as file:
        head = file.read(len(_MAGIC))
    for magic, kind in _PACKED.items():
        if head.startswith(magic):
            return f"is packed ({kind}); unpack it and give the file that is in it."
    if head != _MAGIC:
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return None
    # torch.save's own archives hold one folder with data.pkl and data/0, damaged ones one of them.
    if not names or any(name.endswith("data.pkl") or "/data/" in name for name in names):
        return None
    where = f"{shlex.quote(str(path))} {shlex.quote(str(path.parent))}"
    return (
        f"is an archive that holds {names[0][:80]}; unpack it, python -m zipfile -e {where}, and "
        "give that."
    )


def check_archive(file: BinaryIO) -> None:
    """Raise ``ValueError`` that says what is damaged in what ``torch.save`` wrote.

    ``torch.load`` looks at no checksum.
    Sizes are compared with that of the file before anything is read: entries are stored as they
    are, never compressed. Files of early versions of PyTorch are no archives and have no checksums.
    """
    if file.read(len(_MAGIC)) != _MAGIC:
        return
    try:
        with zipfile.ZipFile(file) as archive:
            _check_sizes(archive.infolist(), os.fstat(file.fileno()).st_size)
            for entry in archive.infolist():
                _check_sum(archive, entry)
    except _UNREADABLE as error:
        raise ValueError(first_line(error)) from error


def _check_sizes(entries: list[zipfile.ZipInfo], size_on_disk: int) -> None:
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ValueError(f"{entry.filename!r} in it is compressed, which torch.save never does")
        if entry.external_attr & _FOLDER:
            # PyTorch would leave its tensor as the memory was.
            raise ValueError(f"{entry.filename!r} in it is marked as a folder")
    if len({entry.filename for entry in entries}) != len(entries):
        raise ValueError("two of its entries have the same name")
    declared = sum(entry.file_size for entry in entries)
    if declared > size_on_disk:
        raise ValueError(f"it declares {declared} bytes of data, but has {size_on_disk}")


def _check_sum(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Read an entry to its end, where the reader compares the checksum."""
    with archive.open(entry) as content:
        while content.read(_CHUNK):
            pass
