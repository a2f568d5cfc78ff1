"""Decoding of image files: photographs in any common file format, and masks."""

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

from datasets.formats.images.image_files import UNSUPPORTED_SUFFIXES
from datasets.formats.options import Size
from utils.errors import UserError, first_line
from utils.files import describe_placeholder

pillow_heif.register_heif_opener()

_MAX_PIXELS = 240_000_000
"""Largest image; Pillow takes four bytes a pixel. Phones take up to 2e8 pixels."""
_MAX_COLOR_MASK_PIXELS = 1 << 27
"""Largest mask that is not grey; it takes two more bytes a pixel."""
_MAX_DEEP_TIFF_PIXELS = 1 << 26
"""Largest TIFF file of 16-bit colours; reading takes 13 bytes a pixel."""
_MAX_ASPECT_RATIO = 64
"""Of images above ``_SHRINK_PIXELS``."""
Image.MAX_IMAGE_PIXELS = None  # Replaced by ``_MAX_PIXELS``, whose error names a remedy.
_SHRINK_PIXELS = 1 << 24
"""Images above this are shrunk by an integer factor while decoding, if a smaller size is wanted."""
_BAND_ROWS = 512
"""Rows of an image that are converted to an array at once."""
_DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, RuntimeError),
    struct.error,
)
_EXIF_ORIENTATION = 0x0112
_MASK_THRESHOLD = 10
"""Grey value (of 255) above which a mask is true, as in MVSNet's readers of DTU."""


@dataclass(frozen=True)
class ImageHeader:
    """Properties of an image file that are known before decoding."""

    stored: Size
    """Height and width as stored, before EXIF rotation."""
    orientation: int = 1
    """EXIF orientation; 1 is upright, 5 to 8 are quarter turns."""
    has_alpha: bool = False

    @property
    def rotated(self) -> bool:
        """Whether EXIF rotates or mirrors the stored image."""
        return self.orientation != 1

    @property
    def upright(self) -> Size:
        """Height and width after EXIF rotation."""
        height, width = self.stored
        return (width, height) if self.orientation >= 5 else (height, width)


@contextmanager
def opened_image(path: Path, max_pixels: int | None = None) -> Iterator[Image.Image]:
    """Open an image and check its size; errors inside the block become ``UserError``."""
    if path.suffix.lower() in UNSUPPORTED_SUFFIXES and path.is_file():
        # Pillow would decode the preview of a raw photo.
        raise UserError(f"{path}: {path.suffix} is not read; convert the image to JPEG or PNG.")
    try:
        with _open(path) as image:
            _check_size(path, (image.height, image.width), max_pixels or _MAX_PIXELS)
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
            f"{path}: cannot read the image ({first_line(error)}). The file is damaged or not an "
            f"image; {remedy}."
        ) from error


def read_header(path: Path) -> ImageHeader:
    """Read size, orientation and transparency without decoding pixels."""
    with opened_image(path) as image:
        return _header_of(image)


def read_image_size(path: Path) -> Size:
    """Read height and width of the upright image without decoding pixels."""
    return read_header(path).upright


def read_image(
    path: Path, background: float | None = None, *, min_size: Size | None = None
) -> Float32[np.ndarray, "height width 3"]:
    """Read an upright image as RGB in [0, 1].

    Transparent pixels are composited over a grey ``background``; None ignores alpha. For
    ``min_size`` see ``read_channels``.
    """
    channels = read_channels(path, keep_alpha=background is not None, min_size=min_size)
    return over_background(channels, background or 0.0)


def over_background(
    values: Float32[np.ndarray, "height width channels"], background: float
) -> Float32[np.ndarray, "height width 3"]:
    """Composite RGBA over a grey background; RGB is returned unchanged."""
    if values.shape[2] == 3:
        return values
    alpha = values[..., 3:]
    return values[..., :3] * alpha + np.float32(background) * (1 - alpha)


def read_channels(
    path: Path, *, keep_alpha: bool, upright: bool = True, min_size: Size | None = None
) -> Float32[np.ndarray, "height width channels"]:
    """Read an image as RGB in [0, 1], or as RGBA if it has alpha and ``keep_alpha`` is set.

    ``upright`` applies the EXIF rotation. With ``min_size``, images above 16 megapixels are shrunk
    by an integer factor, to no less than that height and width.
    """
    with opened_image(path) as image:
        header = _header_of(image)
        height, width = header.upright if upright else header.stored
        factor = 1
        if min_size is not None and height * width > _SHRINK_PIXELS:
            factor = max(1, min(height // max(min_size[0], 1), width // max(min_size[1], 1)))
        if factor == 1:
            pixels = _decode(path, image, keep_alpha)
        else:
            pixels = _decode_shrunk(path, image, factor, keep_alpha)
    if upright:
        pixels = _apply_orientation(pixels, header.orientation)
    values = pixels.astype(np.float32)
    if pixels.dtype != np.float32:
        values /= 255 if pixels.dtype == np.uint8 else 65535
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=-1)


def read_mask(path: Path) -> Bool[np.ndarray, "height width"]:
    """Read a mask: true where grey is above 10 of 255, or above 0 if no pixel is above 10.

    The brightest colour channel counts, and transparent pixels are black. If all colours are black
    and alpha varies, alpha is the mask.
    """
    with opened_image(path) as image:
        orientation = _header_of(image).orientation
        if image.mode.startswith("I;16"):
            pixels = np.asarray(image)
        elif image.mode in ("1", "L", "I", "F") and not image.has_transparency_data:
            pixels = np.asarray(image.convert("L"))
        else:
            _check_size(path, (image.height, image.width), _MAX_COLOR_MASK_PIXELS)
            pixels, alpha = (np.empty(image.size[::-1], np.uint8) for _ in range(2))
            for top in range(0, image.height, _BAND_ROWS):
                rows = slice(top, top + _BAND_ROWS)
                channels = np.asarray(_crop_rows(image, top, top + _BAND_ROWS).convert("RGBA"))
                pixels[rows], alpha[rows] = channels[..., :3].max(-1), channels[..., 3]
            only_alpha = not pixels.any() and alpha.min() < 255
            pixels = alpha if only_alpha else np.minimum(pixels, alpha, out=pixels)
    mask = pixels > (_MASK_THRESHOLD if pixels.max() > _MASK_THRESHOLD else 0)
    return _apply_orientation(mask, orientation)


def _check_size(path: Path, size: Size, max_pixels: int) -> None:
    """Refuse an image by its declared size, before memory is allocated."""
    height, width = size
    if height * width > _SHRINK_PIXELS and max(size) > _MAX_ASPECT_RATIO * min(size):
        raise UserError(
            f"{path}: the image has {width}x{height} pixels, a shape that no camera takes."
        )
    if height * width > max_pixels:
        raise UserError(
            f"{path}: the image has {width}x{height} pixels, more than the limit of "
            f"{max_pixels // 10**6} million for files of this kind; shrink it first."
        )


def _apply_orientation(
    pixels: Shaped[np.ndarray, "height width *channels"], orientation: int
) -> Shaped[np.ndarray, "height2 width2 *channels"]:
    """Rotate and mirror an array by its EXIF orientation."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])


def _crop_rows(image: Image.Image, top: int, bottom: int) -> Image.Image:
    return image.crop((0, top, image.width, min(bottom, image.height)))


def _decode_shrunk(
    path: Path, image: Image.Image, factor: int, keep_alpha: bool
) -> Shaped[np.ndarray, "height width *channels"]:
    """Average squares of pixels, band by band to bound memory."""
    width, height = (max(side // factor, 1) for side in image.size)
    # JPEG files can be decoded at 1/2, 1/4 or 1/8 size; for others this does nothing.
    image.draft(None, (image.width // factor, image.height // factor))
    ratio, step, bands = image.height / height, max(_BAND_ROWS // factor, 1), []
    for first in range(0, height, step):
        last = min(first + step, height)
        top, bottom = first * ratio, min(last * ratio, image.height)
        start = int(top)
        pixels = _decode(path, _crop_rows(image, start, math.ceil(bottom)), keep_alpha)
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
        # Pillow does not read TIFF files of three 16-bit channels; OpenCV does.
        pixels = None
        if path.suffix.lower() in (".tif", ".tiff") and path.stat().st_size:
            _check_size(path, _read_tiff_size(path), _MAX_DEEP_TIFF_PIXELS)
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


def _read_tiff_size(path: Path) -> Size:
    """Return the declared height and width of a TIFF file; 0 where it declares none."""
    with path.open("rb") as file:
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
    width, height = (tags.get(tag, 0) for tag in (256, 257))
    return height, width


def _header_of(image: Image.Image) -> ImageHeader:
    # The method of PNG images would decode the pixels. Pillow rotates TIFF files itself.
    exif = {} if image.format == "TIFF" else Image.Image.getexif(image)
    orientation = exif.get(_EXIF_ORIENTATION, 1)
    valid = isinstance(orientation, int) and 1 <= orientation <= 8
    size: Size = (image.height, image.width)
    return ImageHeader(size, orientation if valid else 1, image.has_transparency_data)


def _decode(
    path: Path, image: Image.Image, keep_alpha: bool
) -> Shaped[np.ndarray, "height width *channels"]:
    """Return grey, RGB or RGBA of 8 or 16 bits, or grey as float in [0, 1]."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        low, high = values.min().item(), values.max().item()
        if 0 <= low and high <= (1.0 if image.mode == "F" else 65535):
            return values.astype(np.float32 if image.mode == "F" else np.uint16)
        raise UserError(
            f"{path}: holds grey values from {low:g} to {high:g}, and the file does not say which "
            "value is white; convert it to 8-bit RGB first."
        )
    mode = "RGBA" if keep_alpha and image.has_transparency_data else "RGB"
    try:
        return np.asarray(image if image.mode == mode else image.convert(mode))
    except ValueError as error:
        if "conversion" not in str(error):
            raise
        raise UserError(
            f"{path}: the image has mode {image.mode!r}, which is not read; convert it to 8-bit "
            "RGB first."
        ) from error
