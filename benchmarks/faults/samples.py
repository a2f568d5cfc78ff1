"""Small whole files, and the readers that they are for."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Parser:
    """A reader of one file."""

    name: str
    """Of the file, or where it lies below a folder of its own."""
    content: bytes
    """Of a file that it reads."""
    read: Callable[[Path], object]
    beside: tuple[tuple[str, bytes], ...] = ()
    """Names and contents of other files that it needs, which stay whole."""


def image_file(mode: str, name: str, exif: Image.Exif | None = None) -> bytes:
    """Return an image of 12x8 pixels in a format."""
    buffer, kind = io.BytesIO(), {"jpg": "jpeg", "tif": "tiff"}.get(name, name)
    options = {} if exif is None else {"exif": exif}
    Image.new(mode, (12, 8)).save(buffer, kind, **options)
    return buffer.getvalue()


def array_file(values: np.ndarray) -> bytes:
    """Return an array as NumPy saves it."""
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()
