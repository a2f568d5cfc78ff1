"""Preparation of photos or video frames for the estimation of their cameras."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from datasets.formats.images.decoding import read_header, read_image
from datasets.formats.images.image_files import list_folder, list_images, natural_key
from datasets.formats.messages import join_names
from datasets.formats.options import Size
from datasets.photos.files import VIDEO_SUFFIXES, find_photos, find_unread_photos, is_video
from datasets.scene_cache import ESTIMATED
from datasets.view_selection import spread_evenly
from utils.errors import UserError
from utils.files import atomic_write
from utils.images import save_image

_LOG = logging.getLogger(__name__)
_PLAIN_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""File formats that COLMAP reads."""
_MIN_COPY_SIZE: Size = (2048, 2048)
"""Copies of very large photos may be reduced to this size, but not below."""
_MAX_FRAMES = 1 << 20
_SEARCH_RADIUS = 5
"""Frames before and after an evenly spaced one among which a sharper one is sought."""
_MIN_SHARPNESS_GAIN = 1.25


@dataclass(frozen=True)
class UprightPhoto:
    """An image file whose stored pixels are upright."""

    path: Path
    size: Size


@dataclass(frozen=True)
class FittedPhotos:
    """Photos cropped to one aspect and resized to one size, as the input of a network."""

    images: Float[Tensor, "view 3 height width"]
    crops: tuple[tuple[int, int, int, int], ...]
    """Top, left, height and width of each crop, in the pixels of its photo."""


def collect_photos(source: Path, out: Path, max_views: int) -> list[UprightPhoto]:
    """Return at most ``max_views`` photos of a folder or frames of a video, spread evenly.

    Video frames, photos with an EXIF rotation and photos in formats that COLMAP does not read are
    written to ``out``. Sub-folders are searched if the folder itself has no photos.
    """
    if source.is_dir():
        paths = find_photos(source) or _images_below(source, out)
        if unread := find_unread_photos(source):
            message = "%s: %d files in unsupported formats are left out (%s); convert to JPEG"
            _LOG.warning(message, source, len(unread), join_names(unread))
    elif is_video(source) and source.is_file():
        paths = _write_frames(source, out / "images", max_views)
    else:
        raise UserError(
            f"{source}: no folder of photos, and no video ({', '.join(VIDEO_SUFFIXES)})."
        )
    if len(paths) < 2:
        raise UserError(f"{source}: has {len(paths)} photos; estimating cameras takes two or more.")
    if len(paths) > max_views:
        _LOG.warning("%s: %d of %d photos are used (--max_views)", source, max_views, len(paths))
    return [_upright(path, source, out / "images") for path in spread_evenly(paths, max_views)]


def fit_photos(photos: Sequence[UprightPhoto], long_side: int) -> FittedPhotos:
    """Crop photos centrally to their median aspect, and resize them to one longer side."""
    aspects = [photo.size[0] / photo.size[1] for photo in photos]
    aspect = sorted(aspects)[len(aspects) // 2]
    height = long_side if aspect >= 1 else round(long_side * aspect)
    width = round(long_side / aspect) if aspect >= 1 else long_side
    images, crops = [], []
    for photo in photos:
        top, left, rows, columns = crop = _central_crop(photo.size, aspect)
        needed = round(photo.size[0] * height / rows), round(photo.size[1] * width / columns)
        pixels = read_image(photo.path, min_size=needed)
        # The decoder may have reduced a large photo.
        scale_y, scale_x = pixels.shape[0] / photo.size[0], pixels.shape[1] / photo.size[1]
        cropped = pixels[
            round(top * scale_y) : round((top + rows) * scale_y),
            round(left * scale_x) : round((left + columns) * scale_x),
        ]
        images.append(cv2.resize(cropped, (width, height), interpolation=cv2.INTER_AREA))
        crops.append(crop)
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return FittedPhotos(stacked, tuple(crops))


def _central_crop(size: Size, aspect: float) -> tuple[int, int, int, int]:
    height, width = size
    rows = min(height, max(1, round(width * aspect)))
    columns = min(width, max(1, round(height / aspect)))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _images_below(folder: Path, out: Path) -> list[Path]:
    """List the photos in all sub-folders except ``out`` and estimated scenes."""
    subfolders = [
        path
        for path in list_folder(folder)
        if path.is_dir() and path.name != ESTIMATED and path.resolve() != out.resolve()
    ]
    photos = [
        path for inner in subfolders for path in list_images(inner) or _images_below(inner, out)
    ]
    return sorted(photos, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def _upright(path: Path, source: Path, out: Path) -> UprightPhoto:
    header = read_header(path)
    if not header.rotated and path.suffix.lower() in _PLAIN_SUFFIXES:
        return UprightPhoto(path, header.stored)
    image = torch.from_numpy(read_image(path, min_size=_MIN_COPY_SIZE)).permute(2, 0, 1)
    name = "_".join(path.relative_to(source).parts)
    target = out / f"{name.replace('.', '_')}.png"
    save_image(target, image)
    return UprightPhoto(target, (image.shape[1], image.shape[2]))


def _write_frames(video: Path, out: Path, count: int) -> list[Path]:
    """Write ``count`` evenly spaced frames, or sharper ones nearby, named by their numbers.

    A blur of two pixels lowers the sharpness to 0.6; new image content changes it by 0.1.
    """
    total = _count_frames(video)
    if not total:
        raise UserError(f"{video}: cannot read the video; it is damaged or of an unknown format.")
    centers = spread_evenly(range(total), count)
    radius = min(total // max(count, 1) // 3, _SEARCH_RADIUS)
    wanted = {center + d for center in centers for d in range(-radius, radius + 1)}
    best: dict[int, tuple[float, int, np.ndarray]] = {}
    paths = []
    for number, frame in _decode_frames(video, wanted):
        center = min(centers, key=lambda center: abs(center - number))
        sharpness = _sharpness(frame) * (_MIN_SHARPNESS_GAIN if number == center else 1.0)
        if sharpness > best.get(center, (-1.0,))[0]:
            best[center] = sharpness, number, frame
        if number == center + radius or number == total - 1:
            _, chosen, pixels = best.pop(center)
            paths.append(out / f"frame_{chosen:06d}.png")
            with atomic_write(paths[-1]) as partial:
                Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).save(partial)
    return paths


def _decode_frames(video: Path, numbers: set[int]) -> Iterator[tuple[int, np.ndarray]]:
    capture = cv2.VideoCapture(str(video))
    for number in range(max(numbers) + 1):
        if not capture.grab():
            break
        if number in numbers:
            yield number, capture.retrieve()[1]
    capture.release()


def _sharpness(frame: np.ndarray) -> float:
    """Return the variance of the Laplacian, which motion blur and defocus lower."""
    return float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.CV_64F).var())


def _count_frames(video: Path) -> int:
    """Count the frames by decoding: the count in the header is often wrong."""
    capture = cv2.VideoCapture(str(video))
    total = 0
    while total < _MAX_FRAMES and capture.grab():
        total += 1
    capture.release()
    return total
