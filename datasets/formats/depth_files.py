"""Depth maps as files: PFM, 16-bit or float PNG and TIFF, NumPy arrays."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped
from PIL import Image

from datasets.formats.pfm import read_pfm
from datasets.npy import ARRAY_ERRORS
from utils.errors import UserError

DEPTH_SUFFIXES = (".pfm", ".png", ".tif", ".tiff", ".npy")
_IMAGE_MODES = ("I;16", "I;16B", "I", "F", "L")
_IMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error)
_MAX_VALUES = 1 << 28


@dataclass(frozen=True)
class DepthFile:
    """A map of z-depths, and what its values are to be multiplied with."""

    path: Path
    scale: float = 1.0


def read_depth(file: DepthFile) -> Float32[np.ndarray, "height width"]:
    """Read a depth map; whatever is not a positive finite number becomes 0, which is unknown.

    Raises:
        UserError: The file is missing, damaged, or no map of numbers.
    """
    path = file.path
    suffix = path.suffix.lower()
    if suffix == ".pfm":
        values = read_pfm(path)
    elif suffix == ".npy":
        values = _read_array(path)
    elif suffix in DEPTH_SUFFIXES:
        values = _read_image(path)
    else:
        raise UserError(f"{path}: depth is read from {', '.join(DEPTH_SUFFIXES)} alone.")
    with np.errstate(over="ignore", invalid="ignore"):
        depth = values.astype(np.float32) * np.float32(file.scale)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _read_array(path: Path) -> Shaped[np.ndarray, "height width"]:
    try:
        # Mapping compares the promised shape with the file's size before any memory is taken.
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except ARRAY_ERRORS as error:
        raise UserError(f"{path}: cannot read the depth map ({str(error)[:120]}).") from error
    if isinstance(values, np.ndarray) and values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    usable = isinstance(values, np.ndarray) and values.ndim == 2 and values.dtype.kind in "fiu"
    if not usable or not 0 < values.size <= _MAX_VALUES:
        raise UserError(f"{path}: expected an array (height, width) of numbers.")
    return np.asarray(values)


def _read_image(path: Path) -> Shaped[np.ndarray, "height width"]:
    try:
        with Image.open(path) as image:
            if image.mode not in _IMAGE_MODES:
                raise UserError(
                    f"{path}: the depth map has mode {image.mode!r}; expected one channel of 16 "
                    "bits or of float."
                )
            return np.asarray(image)
    except (*_IMAGE_ERRORS, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot read the depth map ({error}).") from error
