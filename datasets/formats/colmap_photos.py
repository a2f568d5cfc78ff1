"""The photos and masks of a COLMAP model: where they lie, under which names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datasets.formats.decoding import read_image_size
from datasets.formats.image_files import (
    ImageFinder,
    by_number,
    choose_image_folder,
    common_spelling,
    find_image_folders,
    list_images,
)
from datasets.formats.options import ReadOptions
from datasets.formats.photo_files import shortened, warn_of_unused, warn_once
from utils.errors import UserError

_MIN_VIEWS = 2


def find_photos(
    root: Path, names: Mapping[int, str], options: ReadOptions
) -> tuple[dict[int, Path], ReadOptions]:
    """Return the photos that are there of the images of a model, by number, and how to read them.

    ``names`` are those that the model gives them.
    """
    # Where both are there, input holds the photos before they were undistorted.
    kinds = [find_image_folders(root, kind) for kind in ("images", "input")]
    places = [kind for kind in kinds if kind] or [[root]]
    matches = [
        {inner: found for inner in kind if (found := _match(inner, names))} for kind in places
    ]
    matched = next((found for found in matches if found), {})
    if not matched:
        raise UserError(
            f"{root}: no photo of the {len(names)} images of the COLMAP model; for example, there "
            f"is no images/{min(names.values())[:80]}. Put the photos that COLMAP saw into images/."
        )
    most = max(len(found) for found in matched.values())
    if most < _MIN_VIEWS:
        raise UserError(f"{root}: only {most} photo of {len(names)} images is there.")
    sizes = {
        folder: read_image_size(next(iter(found.values())))
        for folder, found in matched.items()
        if len(found) == most
    }
    folder, options = choose_image_folder(sizes, options)
    found = matched[folder]
    missing = sorted(name for number, name in names.items() if number not in found)
    if missing:
        warn_once(
            f"{folder}: the photos of {len(missing)} of {len(names)} images are missing, which are "
            f"left out: {shortened(missing)}"
        )
    warn_of_unused(found.values(), folder)
    return found, options


def find_masks(root: Path, names: Mapping[int, str]) -> dict[int, Path]:
    """Find the masks of photos in ``masks``, named as the photos or, as COLMAP does, NAME.png."""
    finder = ImageFinder(root / "masks")
    found = {number: path for number, name in names.items() if (path := finder(name))}
    if found:
        warn_once(f"{finder.folder}: masks of {len(found)} of {len(names)} photos are used")
    for path in found.values():
        read_image_size(path)
    return found


def _match(folder: Path, names: Mapping[int, str]) -> dict[int, Path]:
    """Find photos by name; where none is found but as many are there, by order as in LLFF.

    Photos that lie in folders for the model, and here in none, go by the last part of their names.
    """
    finder = ImageFinder(folder)
    found = {number: path for number, name in names.items() if (path := finder(name))}
    bare = {number: common_spelling(name).rpartition("/")[2] for number, name in names.items()}
    if not found and len(set(bare.values())) == len(bare):
        found = {number: path for number, name in bare.items() if (path := finder(name))}
    photos = [] if found else list_images(folder)
    if len(photos) != len(names):
        return found
    warn_once(
        f"{folder}: has other names than the COLMAP model; its {len(photos)} photos are taken in "
        "the order of names"
    )
    ordered = sorted(names, key=lambda number: by_number(names[number]))
    return dict(zip(ordered, photos, strict=True))
