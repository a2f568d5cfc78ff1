"""Which views of a scene its own files set apart for training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from datasets.formats.image_files import common_spelling
from datasets.formats.photo_files import shortened, warn_once
from datasets.formats.scene_lists import Split, content_lines
from utils.errors import UserError

_LISTS_BESIDE_COLMAP: dict[Split, tuple[str, ...]] = {
    "train": ("train_list.txt",),
    "val": ("val_list.txt", "validation_list.txt"),
    "test": ("test_list.txt", "test.txt"),
}


def declared_splits(
    lists: Mapping[Split, Sequence[str]], names: Sequence[str], source: Path
) -> dict[Split, tuple[int, ...]]:
    """Number the views that lists of images name; what is tested on is not trained on.

    ``names`` are those of all views in their order; a list may leave out the folders of an image.
    """
    if not lists:
        return {}
    places: dict[str, set[int]] = {}
    for place, name in enumerate(names):
        # Folders may hold images of one name: a bare name stands for all of them.
        parts = PurePosixPath(name).parts
        for start in range(len(parts)):
            places.setdefault(str(PurePosixPath(*parts[start:])), set()).add(place)
    splits: dict[Split, tuple[int, ...]] = {}
    for split, listed in lists.items():
        found = {name: places.get(name, places.get(PurePosixPath(name).name)) for name in listed}
        absent = [name for name, several in found.items() if several is None]
        if absent:
            warn_once(
                f"{source}: the list of {split} images names some without camera: "
                f"{shortened(absent)}"
            )
        splits[split] = tuple(sorted(set().union(*(several or () for several in found.values()))))
    held = {*splits.get("val", ()), *splits.get("test", ())}
    train = splits.get("train") or range(len(names))
    splits["train"] = tuple(place for place in train if place not in held)
    if not splits["train"]:
        raise UserError(
            f"{source}: its lists leave no image to train on; give a list for training (such as "
            "train_filenames) whose images are not for validation or test, or remove the lists."
        )
    return {split: places for split, places in splits.items() if places}


def lists_beside_colmap(root: Path, model: Path) -> dict[Split, tuple[str, ...]]:
    """Read the lists of images that nerfstudio (in the scene) and 3DGS (in the model) look for."""
    lists: dict[Split, tuple[str, ...]] = {}
    for split, files in _LISTS_BESIDE_COLMAP.items():
        paths = [place / file for file in files for place in (root, model)]
        if path := next((path for path in paths if path.is_file()), None):
            lists[split] = tuple(common_spelling(line) for _, line in content_lines(path))
            warn_once(f"{path}: {len(lists[split])} images are for {split}")
    return lists
