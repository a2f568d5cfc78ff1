"""Finding the photos of a COLMAP model, at full size or shrunk."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from datasets.formats.images import Size, read_image_size
from datasets.formats.photo_files import (
    IMAGE_SUFFIXES,
    choose_image_folder,
    list_folder,
    list_images,
)
from utils.errors import UserError

_LOG = logging.getLogger(__name__)
_IMAGE_FOLDER = re.compile(r"(images|input)(_\d+)?")
_NAMES_SHOWN = 3
_MIN_VIEWS = 2


def find_photos(root: Path, names: Mapping[int, str], size: Size | None) -> dict[int, Path]:
    """Find the photo of every registered image.

    A shrunk copy may have another suffix. Where a folder has none of the names but as many photos
    as there are images, they go together in the order of names, as LLFF numbers them.

    Args:
        root: The folder of the scene.
        names: Of the images, by number.
        size: Wanted height and width; the smallest photos that are as large are taken.

    Raises:
        UserError: There are no photos, or too few.
    """
    _check_names(root, names)
    matched = {folder: found for folder in _folders(root) if (found := _match(folder, names))}
    if not matched:
        first = min(names.values())
        raise UserError(
            f"{root}: no photo of the {len(names)} images of the COLMAP model; for example, there "
            f"is no images/{first[:80]}. Put the photos that COLMAP saw into images/."
        )
    most = max(len(found) for found in matched.values())
    sizes = {
        folder: read_image_size(next(iter(found.values())))
        for folder, found in matched.items()
        if len(found) == most
    }
    folder = choose_image_folder(sizes, size)
    found = matched[folder]
    _report(folder, names, found)
    if len(found) < _MIN_VIEWS:
        raise UserError(f"{folder}: only {len(found)} photo of {len(names)} images is there.")
    return found


def _check_names(root: Path, names: Mapping[int, str]) -> None:
    for name in names.values():
        path = PurePosixPath(name.replace("\\", "/"))
        if not name.strip() or path.is_absolute() or ".." in path.parts:
            raise UserError(f"{root}: the COLMAP model has an image named {name[:80]!r}.")


def _folders(root: Path) -> list[Path]:
    inside = [entry for entry in list_folder(root) if _IMAGE_FOLDER.fullmatch(entry.name)]
    return [entry for entry in inside if entry.is_dir()] or [root]


def _match(folder: Path, names: Mapping[int, str]) -> dict[int, Path]:
    found = {number: path for number, name in names.items() if (path := _find(folder, name))}
    if found:
        return found
    photos = list_images(folder)
    if len(photos) != len(names):
        return {}
    _LOG.warning(
        "%s: has other names than the COLMAP model; its %d photos are taken in the order of names",
        folder,
        len(photos),
    )
    ordered = sorted(names, key=lambda number: names[number])
    return dict(zip(ordered, photos, strict=True))


def _find(folder: Path, name: str) -> Path | None:
    path = folder / name.replace("\\", "/")
    candidates = [path, *(path.with_suffix(suffix) for suffix in IMAGE_SUFFIXES)]
    return next((entry for entry in candidates if entry.is_file()), None)


def _report(folder: Path, names: Mapping[int, str], found: Mapping[int, Path]) -> None:
    missing = sorted(name for number, name in names.items() if number not in found)
    if missing:
        _LOG.warning(
            "%s: the photos of %d of %d images are missing, which are left out: %s%s",
            *(folder, len(missing), len(names), ", ".join(missing[:_NAMES_SHOWN])),
            ", ..." if len(missing) > _NAMES_SHOWN else "",
        )
    used = {path.resolve() for path in found.values()}
    folders = {path.parent for path in found.values()}
    beside = [path for parent in folders for path in list_images(parent)]
    unused = sorted(path.name for path in beside if path.resolve() not in used)
    if unused:
        _LOG.warning(
            "%s: %d photos have no camera in the COLMAP model and are left out: %s%s",
            *(folder, len(unused), ", ".join(unused[:_NAMES_SHOWN])),
            ", ..." if len(unused) > _NAMES_SHOWN else "",
        )
