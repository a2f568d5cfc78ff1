"""Depth maps as PFM, PNG, TIFF and NumPy files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32, Shaped

from datasets.formats.checks import load_array
from datasets.formats.images.decoding import opened_image
from utils.errors import UserError

_SUFFIXES = (".pfm", ".png", ".tif", ".tiff", ".npy")
_IMAGE_MODES = ("I;16", "I;16B", "I", "F", "L")
_MAX_PIXELS, _MAX_NPY_BYTES = 1 << 26, 1 << 30
_MAX_HEADER_LINE = 64
"""Characters of a PFM header line; bounds what is read of other files."""


@dataclass(frozen=True)
class DepthFile:
    """A file of z-depths, and the factor from its values to the unit of the cameras."""

    path: Path
    scale: float = 1.0


def read_depth(file: DepthFile) -> Float32[np.ndarray, "height width"]:
    """Read a depth map; values that are not positive and finite become 0 (unknown)."""
    path = file.path
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UserError(f"{path}: depth maps are read from {', '.join(_SUFFIXES)} only.")
    values = {".pfm": read_pfm, ".npy": _read_npy}.get(suffix, _read_image)(path)
    with np.errstate(over="ignore", invalid="ignore"):
        depth = values.astype(np.float32) * np.float32(file.scale)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def read_pfm(path: Path) -> Float32[np.ndarray, "height width"]:
    """Read a one-channel PFM, first row on top, values unchanged."""
    try:
        with path.open("rb") as file:
            width, height, byte_order = _read_pfm_header(file, path)
            expected = width * height * 4
            actual = path.stat().st_size - file.tell()
            if actual != expected:
                raise UserError(
                    f"{path}: the header declares {width}x{height} values ({expected} bytes), "
                    f"but {actual} bytes follow it. Copy or convert the file again."
                )
            values = np.frombuffer(file.read(expected), dtype=f"{byte_order}f4")
    except OSError as error:
        raise UserError(f"{path}: cannot read the depth map ({error}).") from error
    return np.flipud(values.reshape(height, width)).astype(np.float32)


def write_pfm(path: Path, values: Float32[np.ndarray, "height width"]) -> None:
    """Write a one-channel little-endian PFM, rows from bottom to top."""
    height, width = values.shape
    header = f"Pf\n{width} {height}\n-1.0\n".encode()
    path.write_bytes(header + np.flipud(values).astype("<f4").tobytes())


def _read_pfm_header(file: BinaryIO, path: Path) -> tuple[int, int, str]:
    magic, size, scale = (
        file.readline(_MAX_HEADER_LINE).decode("ascii", "replace").strip() for _ in range(3)
    )
    if magic != "Pf":
        kind = "a colour PFM, not a depth map" if magic == "PF" else "not a PFM file"
        raise UserError(f"{path}: this is {kind}: its first line is {magic!r} instead of 'Pf'.")
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


def _read_npy(path: Path) -> Shaped[np.ndarray, "height width"]:
    values = load_array(path, "depth map", _MAX_NPY_BYTES)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or not 0 < values.size <= _MAX_PIXELS:
        raise UserError(f"{path}: expected an array (height, width) of numbers.")
    return np.asarray(values)


def _read_image(path: Path) -> Shaped[np.ndarray, "height width"]:
    with opened_image(path, _MAX_PIXELS) as image:
        if image.mode not in _IMAGE_MODES:
            raise UserError(
                f"{path}: the depth map has mode {image.mode!r}; expected one channel of 16 bits "
                "or of float."
            )
        return np.asarray(image)
