"""Somebody's own pictures: a folder of photos of any sizes, or a video, without cameras."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from datasets.formats.images import Size, opened_image
from datasets.formats.photo_files import list_images
from utils.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
_LOG = logging.getLogger(__name__)
_ORIENTATION = 0x0112
"""The EXIF tag; 1 means upright."""
_MAX_FRAMES = 1 << 20

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class UprightPhoto:
    """One picture, on disk as it is to be seen."""

    path: Path
    size: Size


@dataclass(frozen=True)
class FittedPhotos:
    """Pictures cut to one aspect and brought to one size, as a network sees them."""

    images: Float[Tensor, "view 3 height width"]
    crops: tuple[tuple[int, int, int, int], ...]
    """For each picture top, left, height and width of what was kept, in its own pixels."""


def collect_photos(source: Path, out: Path, max_views: int) -> list[UprightPhoto]:
    """Find the pictures; those that lie on their side and frames of a video are written upright.

    Args:
        source: A folder of photos, or a video.
        out: Folder for whatever has to be written.
        max_views: Of more pictures so many are taken, spread evenly.

    Raises:
        UserError: There are fewer than two, or one is damaged.
    """
    if source.is_dir():
        paths = list_images(source)
    elif source.suffix.lower() in VIDEO_SUFFIXES and source.is_file():
        paths = _write_frames(source, out / "images", max_views)
    else:
        raise UserError(
            f"{source}: no folder of photos, and no video ({', '.join(VIDEO_SUFFIXES)})."
        )
    if len(paths) < 2:
        raise UserError(f"{source}: holds {len(paths)} pictures; cameras need two or more.")
    if len(paths) > max_views:
        _LOG.warning("%s: %d of %d photos are used (--max_views)", source, max_views, len(paths))
    return [_upright(path, out / "images") for path in _spread(paths, max_views)]


def fit_photos(photos: Sequence[UprightPhoto], long_side: int) -> FittedPhotos:
    """Cut photos about their middle to the aspect that is the most common, and shrink them.

    Raises:
        UserError: A file is damaged.
    """
    aspects = [photo.size[0] / photo.size[1] for photo in photos]
    aspect = sorted(aspects)[len(aspects) // 2]
    height = long_side if aspect >= 1 else round(long_side * aspect)
    width = round(long_side / aspect) if aspect >= 1 else long_side
    images, crops = [], []
    for photo in photos:
        crop = _central_crop(photo.size, aspect)
        top, left, rows, columns = crop
        pixels = _read_upright(photo.path)[top : top + rows, left : left + columns]
        images.append(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))
        crops.append(crop)
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return FittedPhotos(stacked.float() / 255, tuple(crops))


def _central_crop(size: Size, aspect: float) -> tuple[int, int, int, int]:
    height, width = size
    rows = min(height, max(1, round(width * aspect)))
    columns = min(width, max(1, round(height / aspect)))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _upright(path: Path, out: Path) -> UprightPhoto:
    with opened_image(path) as image:
        turned = image.getexif().get(_ORIENTATION, 1) not in (0, 1)
        if not turned:
            return UprightPhoto(path, (image.height, image.width))
        straight = ImageOps.exif_transpose(image).convert("RGB")
    target = out / f"{path.stem}{path.suffix.replace('.', '_')}.png"
    _save(straight, target)
    return UprightPhoto(target, (straight.height, straight.width))


def _read_upright(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    with opened_image(path) as image:
        return np.array(image.convert("RGB"))


def _write_frames(video: Path, out: Path, count: int) -> list[Path]:
    """Write frames that are spread evenly over a video."""
    total = _count_frames(video)
    if not total:
        raise UserError(f"{video}: cannot read the video; it is damaged or of an unknown kind.")
    chosen = set(_spread(range(total), count))
    paths = []
    capture = cv2.VideoCapture(str(video))
    for number in range(total):
        if not capture.grab():
            break
        if number in chosen:
            frame = capture.retrieve()[1]
            paths.append(out / f"frame_{number:06d}.png")
            _save(Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)), paths[-1])
    capture.release()
    return paths


def _count_frames(video: Path) -> int:
    """Count by going through the video: what its header says is often wrong."""
    capture = cv2.VideoCapture(str(video))
    total = 0
    while total < _MAX_FRAMES and capture.grab():
        total += 1
    capture.release()
    return total


def _save(image: Image.Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    except OSError as error:
        raise UserError(f"{path}: cannot write the picture ({error.strerror}).") from error


def _spread(items: Sequence[ItemT], count: int) -> list[ItemT]:
    if len(items) <= count:
        return list(items)
    return [items[(2 * n + 1) * len(items) // (2 * count)] for n in range(count)]
