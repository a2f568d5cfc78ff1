"""The one decoder of image files: photographs of any kind, and masks."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
from jaxtyping import Bool, Float32, Shaped
from PIL import Image, TiffImagePlugin

from datasets.formats.image_files import UNREAD_SUFFIXES
from datasets.formats.options import Size
from utils.errors import UserError, first_line
from utils.files import describe_placeholder

pillow_heif.register_heif_opener()

MAX_PIXELS = 240_000_000
"""Of one image, which Pillow holds in four bytes each. Telephones take 2e8."""
_MAX_COLOURED_MASK = 1 << 27
"""Pixels of a mask that is not grey, of which two more bytes each are made."""
_MAX_DEEP_TIFF = 1 << 26
"""Pixels of a TIFF file of 16-bit colours, which takes 13 bytes each to be read."""
Image.MAX_IMAGE_PIXELS = None
"""Images are bounded by ``MAX_PIXELS``, with an error that says so."""
_EXACT_PIXELS = 1 << 24
"""Larger images are shrunk by a whole number while they are read, if they are wanted smaller."""
_BAND = 512
"""Rows of an image that are made an array at once."""
_LONGEST = 64
"""Sides of a large image: the longer by the shorter."""
_DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, RuntimeError),
    struct.error,
)
_ORIENTATION = 0x0112
"""The EXIF tag; 1 means upright, 5 to 8 are quarter turns."""
_MASK_THRESHOLD = 10
"""Grey value above which a mask counts, as the readers of MVSNet's DTU data have it."""


@dataclass(frozen=True)
class ImageHeader:
    """What is known of an image before its pixels are read."""

    stored: Size
    """Height and width as the file has them, whatever EXIF says."""
    orientation: int = 1
    transparent: bool = False
    """Whether pixels have an alpha value, be it 1 everywhere."""

    @property
    def turned(self) -> bool:
        """Whether EXIF says that the image is to be turned or mirrored to be seen upright."""
        return self.orientation != 1

    @property
    def upright(self) -> Size:
        """Height and width as the image is seen."""
        height, width = self.stored
        return (width, height) if self.orientation >= 5 else (height, width)


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """Open an image; whatever goes wrong while it is open is the file's fault and says so."""
    if path.suffix.lower() in UNREAD_SUFFIXES and path.is_file():
        # Of raw photos, Pillow would show the preview.
        raise UserError(f"{path}: {path.suffix} is not read; convert the image to JPEG or PNG.")
    try:
        with _open(path) as image:
            check_pixels(path, image, MAX_PIXELS)
            yield image
    except FileNotFoundError as error:
        raise UserError(f"{path}: the image is missing.") from error
    except _DECODE_ERRORS as error:
        if placeholder := describe_placeholder(path):
            raise UserError(f"{path}: {placeholder}") from error
        remedy = "copy or unpack it again"
        if path.suffix.lower() in (".heic", ".heif", ".avif"):
            remedy += ", or convert it to JPEG"
        raise UserError(
            f"{path}: cannot read the image ({first_line(error)}). The file is damaged or no "
            f"image; {remedy}."
        ) from error


def check_pixels(path: Path, image: Image.Image, most: int) -> None:
    """Refuse an image that declares more pixels, before memory is taken for them."""
    _check_size(path, (image.height, image.width), most)


def _check_size(path: Path, size: Size, most: int) -> None:
    if size[0] * size[1] > _EXACT_PIXELS and max(size) > _LONGEST * min(size):
        # It could not be shrunk to any size that is wanted.
        raise UserError(
            f"{path}: the image has {size[1]}x{size[0]} pixels, a shape that no camera takes."
        )
    if size[0] * size[1] > most:
        raise UserError(
            f"{path}: the image has {size[1]}x{size[0]} pixels, more than the {most // 10**6} "
            "million that are read of this kind; shrink it first."
        )


def read_header(path: Path) -> ImageHeader:
    """Read size and orientation, without the pixels."""
    with opened_image(path) as image:
        return _header_of(image)


def read_image_size(path: Path) -> Size:
    """Read the size of the upright image from the header alone."""
    return read_header(path).upright


def read_image(
    path: Path, background: float | None = None, *, upright: bool = True, least: Size | None = None
) -> Float32[np.ndarray, "height width 3"]:
    """Read an image as RGB in [0, 1], over a grey ``background`` where it is transparent.

    Without a background, alpha is left aside; for the rest see ``read_channels``.
    """
    values = read_channels(path, background is not None, upright=upright, least=least)
    return over_background(values, background or 0.0)


def over_background(
    values: Float32[np.ndarray, "height width channels"], background: float
) -> Float32[np.ndarray, "height width 3"]:
    """Put RGBA over a grey background; RGB stays as it is."""
    if values.shape[2] == 3:
        return values
    alpha = values[..., 3:]
    return values[..., :3] * alpha + np.float32(background) * (1 - alpha)


def read_channels(
    path: Path, transparent: bool, *, upright: bool = True, least: Size | None = None
) -> Float32[np.ndarray, "height width channels"]:
    """Read an image as RGB in [0, 1], or RGBA if it has alpha, which ``transparent`` asks for.

    Without ``upright``, EXIF's turn is left aside. Images of more than 16 megapixels that are
    wanted smaller are shrunk by a whole number, to ``least`` or more.
    """
    with opened_image(path) as image:
        header = _header_of(image)
        seen = header.upright if upright else header.stored
        factor = 1
        if least is not None and seen[0] * seen[1] > _EXACT_PIXELS:
            factor = max(1, min(seen[0] // max(least[0], 1), seen[1] // max(least[1], 1)))
        pixels = (
            _decoded(path, image, transparent)
            if factor == 1
            else _shrunk(path, image, factor, transparent)
        )
    if upright:
        pixels = _turned(pixels, header.orientation)
    values = pixels.astype(np.float32)
    if pixels.dtype != np.float32:
        values /= 255 if pixels.dtype == np.uint8 else 65535
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=-1)
    return values


def read_mask(path: Path) -> Bool[np.ndarray, "height width"]:
    """Read a mask: true where grey is above 10 of 255, or above 0 if no pixel is above 10.

    The brightest channel counts, and what is transparent is black; where all colours are black and
    only alpha varies, alpha is the mask.
    """
    with opened_image(path) as image:
        orientation = _header_of(image).orientation
        if image.mode.startswith("I;16"):
            pixels = np.asarray(image)
        elif image.mode in ("1", "L", "I", "F") and not image.has_transparency_data:
            pixels = np.asarray(image.convert("L"))
        else:
            check_pixels(path, image, _MAX_COLOURED_MASK)
            pixels, alpha = (np.empty(image.size[::-1], np.uint8) for _ in range(2))
            for top in range(0, image.height, _BAND):
                rows = slice(top, top + _BAND)
                channels = np.asarray(_rows_of(image, top, top + _BAND).convert("RGBA"))
                pixels[rows], alpha[rows] = channels[..., :3].max(-1), channels[..., 3]
            only_alpha = not pixels.any() and alpha.min() < 255
            pixels = alpha if only_alpha else np.minimum(pixels, alpha, out=pixels)
    mask = pixels > (_MASK_THRESHOLD if pixels.max() > _MASK_THRESHOLD else 0)
    return _turned(mask, orientation)


def _turned(
    pixels: Shaped[np.ndarray, "height width *channels"], orientation: int
) -> Shaped[np.ndarray, "height2 width2 *channels"]:
    """Turn and mirror an array as EXIF says."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])


def _rows_of(image: Image.Image, top: int, bottom: int) -> Image.Image:
    return image.crop((0, top, image.width, min(bottom, image.height)))


def _shrunk(
    path: Path, image: Image.Image, factor: int, transparent: bool
) -> Shaped[np.ndarray, "height width *channels"]:
    """Average squares of pixels, in bands: as an array, the image would take several times more."""
    width, height = (max(side // factor, 1) for side in image.size)
    # JPEG files can be decoded at a half, a quarter or an eighth; others stay as they are.
    image.draft(None, (image.width // factor, image.height // factor))
    ratio, step, bands = image.height / height, max(_BAND // factor, 1), []
    for first in range(0, height, step):
        last = min(first + step, height)
        top, bottom = first * ratio, min(last * ratio, image.height)
        start = int(top)
        pixels = _decoded(path, _rows_of(image, start, math.ceil(bottom)), transparent)
        if pixels.dtype == np.uint16:
            pixels = pixels.astype(np.float32) / 65535
        band = Image.fromarray(pixels)
        box = (0, top - start, image.width, bottom - start)
        bands.append(np.asarray(band.resize((width, last - first), Image.Resampling.BOX, box)))
    return np.concatenate(bands)


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except Image.UnidentifiedImageError:
        # Pillow knows no TIFF of three channels of 16 bits, and OpenCV does.
        pixels = None
        if path.suffix.lower() in (".tif", ".tiff") and path.stat().st_size:
            _check_size(path, _size_of_tiff(path), _MAX_DEEP_TIFF)
            pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise
        if pixels.dtype != np.uint16 or pixels.ndim != 3:
            raise UserError(
                f"{path}: the image holds {pixels.dtype} values of {pixels[0, 0].size} channels, "
                "which are not read; convert it to 8-bit RGB first."
            ) from None
        pixels //= 257
        order = [2, 1, 0, 3][: pixels.shape[2]]
        return Image.fromarray(pixels.astype(np.uint8)[..., order])


def _size_of_tiff(path: Path) -> Size:
    """Return the height and width that a TIFF file declares; 0 where it declares none."""
    with path.open("rb") as file:
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
    width, height = (tags.get(tag, 0) for tag in (256, 257))
    return height, width


def _header_of(image: Image.Image) -> ImageHeader:
    # Not PNG's own method, which decodes the image; and Pillow turns TIFF files by itself.
    orientation = 1 if image.format == "TIFF" else Image.Image.getexif(image).get(_ORIENTATION, 1)
    known = isinstance(orientation, int) and 1 <= orientation <= 8
    size: Size = (image.height, image.width)
    return ImageHeader(size, orientation if known else 1, image.has_transparency_data)


def _decoded(
    path: Path, image: Image.Image, transparent: bool
) -> Shaped[np.ndarray, "height width *channels"]:
    """Return grey, RGB or RGBA of 8 or 16 bits, or grey of float in [0, 1]."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        low, high = values.min().item(), values.max().item()
        if 0 <= low and high <= (1.0 if image.mode == "F" else 65535):
            return values.astype(np.float32 if image.mode == "F" else np.uint16)
        raise UserError(
            f"{path}: holds grey values from {low:g} to {high:g}, and which of them is white the "
            "file does not say; convert it to 8-bit RGB first."
        )
    wanted = "RGBA" if transparent and image.has_transparency_data else "RGB"
    try:
        return np.asarray(image if image.mode == wanted else image.convert(wanted))
    except ValueError as error:
        if "conversion" not in str(error):
            raise
        raise UserError(
            f"{path}: the image has mode {image.mode!r}, which is not read; convert it to 8-bit "
            "RGB first."
        ) from error
