"""Finding of the photos and masks of a COLMAP model by the names in the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datasets.formats.images.decoding import read_image_size
from datasets.formats.images.image_files import (
    ImageFinder,
    choose_image_folder,
    find_image_folders,
    list_images,
    natural_key,
    normalize_path,
)
from datasets.formats.images.photos import warn_of_unused_photos
from datasets.formats.messages import join_names, warn_once
from datasets.formats.options import ReadOptions
from utils.errors import UserError

_MIN_VIEWS = 2


def find_photos(
    root: Path, names: Mapping[int, str], options: ReadOptions
) -> tuple[dict[int, Path], ReadOptions]:
    """Return the existing photos by image id, and the options to read them with.

    ``names`` are the image names of the model by image id.
    """
    # With both, input holds the photos before undistortion.
    groups = [find_image_folders(root, pattern) for pattern in ("images", "input")]
    groups = [group for group in groups if group] or [[root]]
    matched: dict[Path, dict[int, Path]] = {}
    for group in groups:
        matched = matched or {folder: paths for folder in group if (paths := _match(folder, names))}
    if not matched:
        raise UserError(
            f"{root}: no photo of the {len(names)} images of the COLMAP model; for example, there "
            f"is no images/{min(names.values())[:80]}. Put the photos that COLMAP saw into images/."
        )
    most = max(map(len, matched.values()))
    if most < _MIN_VIEWS:
        raise UserError(
            f"{root}: only {most} photo of {len(names)} images exists; restore the others."
        )
    sizes = {
        folder: read_image_size(next(iter(photos.values())))
        for folder, photos in matched.items()
        if len(photos) == most
    }
    folder, options = choose_image_folder(sizes, options)
    photos = matched[folder]
    if missing := sorted(name for number, name in names.items() if number not in photos):
        warn_once(
            f"{folder}: the photos of {len(missing)} of {len(names)} images are missing, which are "
            f"left out: {join_names(missing)}"
        )
    warn_of_unused_photos(photos.values(), folder)
    return photos, options


def find_masks(root: Path, names: Mapping[int, str]) -> dict[int, Path]:
    """Find masks in ``masks``, named as the photos or, as COLMAP does, NAME.png."""
    finder = ImageFinder(root / "masks")
    masks = _find_all(finder, names)
    if masks:
        warn_once(f"{finder.folder}: masks of {len(masks)} of {len(names)} photos are used")
    for path in masks.values():
        read_image_size(path)
    return masks


def _match(folder: Path, names: Mapping[int, str]) -> dict[int, Path]:
    """Find photos by name, else by bare name, else by order as in LLFF if their number agrees."""
    finder = ImageFinder(folder)
    if photos := _find_all(finder, names):
        return photos
    bare = {number: normalize_path(name).rpartition("/")[2] for number, name in names.items()}
    if len(set(bare.values())) == len(bare) and (photos := _find_all(finder, bare)):
        return photos
    images = list_images(folder)
    if len(images) != len(names):
        return {}
    warn_once(
        f"{folder}: has other names than the COLMAP model; its {len(images)} photos are taken in "
        "the order of names"
    )
    ordered = sorted(names, key=lambda number: natural_key(names[number]))
    return dict(zip(ordered, images, strict=True))


def _find_all(finder: ImageFinder, names: Mapping[int, str]) -> dict[int, Path]:
    return {number: path for number, name in names.items() if (path := finder(name))}
