"""Pictures without cameras: a folder of photos of any sizes, or a video."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from datasets.bare_photos import VIDEO_SUFFIXES, find_photos, find_unread_photos, is_video
from datasets.formats.images.decoding import read_header, read_image
from datasets.formats.images.image_files import list_folder, list_images, natural_key
from datasets.formats.messages import join_names
from datasets.formats.options import Size
from datasets.scene_cache import ESTIMATED
from utils.errors import UserError
from utils.files import written_whole
from utils.images import save_image

_LOG = logging.getLogger(__name__)
_PLAIN_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""What other programs read too, such as COLMAP."""
_LEAST_COPY: Size = (2048, 2048)
"""To this or more the copies of very large photos are shrunk."""
_MAX_FRAMES = 1 << 20
_REACH = 5
"""Frames before and after an even place that may be taken in its stead."""
_MUCH_SHARPER = 1.25
"""How much sharper these have to be."""

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class UprightPhoto:
    """One picture, on disk as it is to be seen."""

    path: Path
    size: Size


@dataclass(frozen=True)
class FittedPhotos:
    """Pictures cut to one aspect and resized to one size, as a network sees them."""

    images: Float[Tensor, "view 3 height width"]
    crops: tuple[tuple[int, int, int, int], ...]
    """For each picture top, left, height and width of what was kept, in its own pixels."""


def collect_photos(source: Path, out: Path, max_views: int) -> list[UprightPhoto]:
    """Find the pictures of a folder or video, upright, and at most so many, spread evenly.

    Photos that EXIF says are turned or that few programs read, and frames of a video, are written
    to ``out``. Folders in the folder are looked through if it holds no photo itself.
    """
    if source.is_dir():
        paths = find_photos(source) or _images_below(source, out)
        if unread := find_unread_photos(source):
            message = "%s: %d files of kinds that are not read are left out (%s); convert to JPEG"
            _LOG.warning(message, source, len(unread), join_names(unread))
    elif is_video(source) and source.is_file():
        paths = _write_frames(source, out / "images", max_views)
    else:
        raise UserError(
            f"{source}: no folder of photos, and no video ({', '.join(VIDEO_SUFFIXES)})."
        )
    if len(paths) < 2:
        raise UserError(f"{source}: holds {len(paths)} pictures; cameras need two or more.")
    if len(paths) > max_views:
        _LOG.warning("%s: %d of %d photos are used (--max_views)", source, max_views, len(paths))
    return [_upright(path, source, out / "images") for path in spread_evenly(paths, max_views)]


def fit_photos(photos: Sequence[UprightPhoto], long_side: int) -> FittedPhotos:
    """Cut photos about their middle to the most common aspect, and shrink them."""
    aspects = [photo.size[0] / photo.size[1] for photo in photos]
    aspect = sorted(aspects)[len(aspects) // 2]
    height = long_side if aspect >= 1 else round(long_side * aspect)
    width = round(long_side / aspect) if aspect >= 1 else long_side
    images, crops = [], []
    for photo in photos:
        top, left, rows, columns = crop = _central_crop(photo.size, aspect)
        whole = round(photo.size[0] * height / rows), round(photo.size[1] * width / columns)
        pixels = read_image(photo.path, min_size=whole)
        # A large photo may have been shrunk while it was read.
        down, across = pixels.shape[0] / photo.size[0], pixels.shape[1] / photo.size[1]
        kept = pixels[
            round(top * down) : round((top + rows) * down),
            round(left * across) : round((left + columns) * across),
        ]
        images.append(cv2.resize(kept, (width, height), interpolation=cv2.INTER_AREA))
        crops.append(crop)
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return FittedPhotos(stacked, tuple(crops))


def spread_evenly(items: Sequence[ItemT], count: int) -> list[ItemT]:
    """Return at most so many items, spread evenly."""
    if len(items) <= count:
        return list(items)
    return [items[(2 * n + 1) * len(items) // (2 * count)] for n in range(count)]


def _central_crop(size: Size, aspect: float) -> tuple[int, int, int, int]:
    height, width = size
    rows = min(height, max(1, round(width * aspect)))
    columns = min(width, max(1, round(height / aspect)))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _images_below(folder: Path, out: Path) -> list[Path]:
    """List the photos in the folders of a folder, those that were written to ``out`` aside."""
    inner = [
        path
        for path in list_folder(folder)
        if path.is_dir() and path.name != ESTIMATED and path.resolve() != out.resolve()
    ]
    found = [path for place in inner for path in list_images(place) or _images_below(place, out)]
    return sorted(found, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def _upright(path: Path, source: Path, out: Path) -> UprightPhoto:
    header = read_header(path)
    if not header.rotated and path.suffix.lower() in _PLAIN_SUFFIXES:
        return UprightPhoto(path, header.stored)
    image = torch.from_numpy(read_image(path, min_size=_LEAST_COPY)).permute(2, 0, 1)
    name = "_".join(path.relative_to(source).parts)
    target = out / f"{name.replace('.', '_')}.png"
    save_image(target, image)
    return UprightPhoto(target, (image.shape[1], image.shape[2]))


def _write_frames(video: Path, out: Path, count: int) -> list[Path]:
    """Write the frames at so many places, spread evenly, or sharper ones nearby, by their numbers.

    Blur of two pixels lowers the sharpness to 0.6, and what comes into view changes it by 0.1.
    """
    total = _count_frames(video)
    if not total:
        raise UserError(f"{video}: cannot read the video; it is damaged or of an unknown kind.")
    places = spread_evenly(range(total), count)
    reach = min(total // max(count, 1) // 3, _REACH)
    best: dict[int, tuple[float, int, np.ndarray]] = {}
    paths = []
    for number, frame in _decoded(video, {n + d for n in places for d in range(-reach, reach + 1)}):
        place = min(places, key=lambda place: abs(place - number))
        sharpness = _sharpness(frame) * (_MUCH_SHARPER if number == place else 1.0)
        if sharpness > best.get(place, (-1.0,))[0]:
            best[place] = sharpness, number, frame
        if number == place + reach or number == total - 1:
            _, chosen, pixels = best.pop(place)
            paths.append(out / f"frame_{chosen:06d}.png")
            with written_whole(paths[-1]) as partial:
                Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).save(partial)
    return paths


def _decoded(video: Path, numbers: set[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield some frames of a video with their numbers."""
    capture = cv2.VideoCapture(str(video))
    for number in range(max(numbers) + 1):
        if not capture.grab():
            break
        if number in numbers:
            yield number, capture.retrieve()[1]
    capture.release()


def _sharpness(frame: np.ndarray) -> float:
    """Return the variance of the Laplacian, which motion blur and lack of focus lower."""
    return float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.CV_64F).var())


def _count_frames(video: Path) -> int:
    """Count by going through the video: what its header says is often wrong."""
    capture = cv2.VideoCapture(str(video))
    total = 0
    while total < _MAX_FRAMES and capture.grab():
        total += 1
    capture.release()
    return total
