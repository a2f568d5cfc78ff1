"""Portable float maps: the format of DTU's depth maps (one channel, rows from bottom to top)."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32

from utils.errors import UserError

_MAX_HEADER_LINE = 64
"""No sane header line is longer; bounds what is read of a file that is no PFM."""


def read_pfm(path: Path) -> Float32[np.ndarray, "height width"]:
    """Read a one-channel PFM with its first row on top, values as they stand in the file.

    The promised size is compared with the size of the file before anything is allocated.

    Raises:
        UserError: The file is missing, is no one-channel PFM, or its size and header disagree.
    """
    try:
        with path.open("rb") as file:
            width, height, byte_order = _read_header(file, path)
            promised = width * height * 4
            held = path.stat().st_size - file.tell()
            if held != promised:
                raise UserError(
                    f"{path}: the header promises {width}x{height} values ({promised} bytes), "
                    f"but {held} bytes follow it. Copy or convert the file again."
                )
            values = np.frombuffer(file.read(promised), dtype=f"{byte_order}f4")
    except OSError as error:
        raise UserError(
            f"{path}: cannot read the depth map ({error.strerror or error})."
        ) from error
    return np.flipud(values.reshape(height, width)).astype(np.float32)


def write_pfm(path: Path, values: Float32[np.ndarray, "height width"]) -> None:
    """Write a one-channel little-endian PFM."""
    height, width = values.shape
    header = f"Pf\n{width} {height}\n-1.0\n".encode()
    path.write_bytes(header + np.flipud(values).astype("<f4").tobytes())


def _read_header(file: BinaryIO, path: Path) -> tuple[int, int, str]:
    """Return width, height and numpy's mark of the byte order; leave the file at the data."""
    magic = _header_line(file)
    if magic != "Pf":
        kind = "a colour PFM, not a depth map" if magic == "PF" else "no PFM file"
        raise UserError(f"{path}: this is {kind}: its first line is {magic!r} instead of 'Pf'.")
    size, scale = _header_line(file), _header_line(file)
    try:
        width, height = (int(word) for word in size.split())
        sign = float(scale)
    except ValueError as error:
        raise UserError(
            f"{path}: malformed PFM header: expected 'width height' and a scale, "
            f"found {size!r} and {scale!r}."
        ) from error
    if width < 1 or height < 1 or not np.isfinite(sign) or sign == 0:
        raise UserError(f"{path}: impossible PFM header: size {size!r}, scale {scale!r}.")
    return width, height, "<" if sign < 0 else ">"


def _header_line(file: BinaryIO) -> str:
    return file.readline(_MAX_HEADER_LINE).decode("ascii", "replace").strip()
