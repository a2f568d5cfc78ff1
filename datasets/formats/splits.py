"""Training, validation and test splits: of the scenes of a data set, of the views of a scene.

This module does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from datasets.formats.images.image_files import normalize_path
from datasets.formats.messages import join_names, warn_once
from utils.errors import UserError
from utils.files import check_size

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
_SCENE_LISTS: dict[Split, tuple[str, ...]] = {
    "train": ("lists/train.txt", "training_list.txt", "BlendedMVS_training.txt"),
    "val": ("lists/val.txt", "lists/test.txt", "validation_list.txt", "BlendedMVS_validation.txt"),
    "test": ("lists/test.txt", "lists/val.txt", "validation_list.txt", "BlendedMVS_validation.txt"),
}
_VIEW_LISTS: dict[Split, tuple[str, ...]] = {
    "train": ("train_list.txt",),
    "val": ("val_list.txt", "validation_list.txt"),
    "test": ("test_list.txt", "test.txt"),
}
_SCAN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MAX_BYTES = 1 << 24
_MAX_NAME = 200


def find_scene_list(root: Path, split: Split) -> Path | None:
    """Return the list of a split's scenes in a data folder, if it has one."""
    paths = [root / name for name in _SCENE_LISTS[split]]
    return next((path for path in paths if path.is_file()), None)


def read_scene_list(path: Path, plain_names: bool = False) -> list[str]:
    """Read names of scene folders, one a line; ``plain_names`` allows no paths, as for scans."""
    lines = content_lines(path)
    for number, line in lines:
        relative = len(line) <= _MAX_NAME and not Path(line).is_absolute()
        if not relative or ".." in Path(line).parts:
            raise UserError(f"{path}, line {number}: expected a folder, found {line[:80]!r}.")
        if plain_names and not _SCAN_NAME.fullmatch(line):
            raise UserError(
                f"{path}, line {number}: expected a scan such as 'scan1', found {line[:80]!r}."
            )
    if not lines:
        raise UserError(f"{path}: the list names no scene.")
    return list(dict.fromkeys(line for _, line in lines))


def content_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a text file with their numbers, without comments and empty lines."""
    try:
        check_size(path, _MAX_BYTES, "list")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the list ({error}).") from error
    lines = enumerate((line.split("#")[0].strip() for line in text.splitlines()), start=1)
    return [(number, line) for number, line in lines if line]


def read_view_lists(folders: Sequence[Path]) -> dict[Split, tuple[str, ...]]:
    """Read the lists of images of nerfstudio (in the scene) or 3DGS (in the COLMAP model)."""
    lists: dict[Split, tuple[str, ...]] = {}
    for split, names in _VIEW_LISTS.items():
        paths = [folder / name for name in names for folder in folders]
        if path := next((path for path in paths if path.is_file()), None):
            lists[split] = tuple(normalize_path(line) for _, line in content_lines(path))
            warn_once(f"{path}: {len(lists[split])} images are for {split}")
    return lists


def declared_splits(
    lists: Mapping[Split, Sequence[str]], names: Sequence[str], source: Path
) -> dict[Split, tuple[int, ...]]:
    """Return the views of each split by lists of image names.

    ``names`` are the image names of all views. A list may omit the folders of an image. Views for
    validation or test are never for training.
    """
    if not lists:
        return {}
    views_by_name = _views_by_name(names)
    splits: dict[Split, tuple[int, ...]] = {}
    for split, listed in lists.items():
        matches = [
            views_by_name.get(name, views_by_name.get(PurePosixPath(name).name)) for name in listed
        ]
        missing = [name for name, views in zip(listed, matches, strict=True) if views is None]
        if missing:
            warn_once(
                f"{source}: the list of {split} images names images without a camera: "
                f"{join_names(missing)}"
            )
        splits[split] = tuple(sorted(set().union(*(views or () for views in matches))))
    held_out = {*splits.get("val", ()), *splits.get("test", ())}
    train = splits.get("train") or range(len(names))
    splits["train"] = tuple(view for view in train if view not in held_out)
    if not splits["train"]:
        raise UserError(
            f"{source}: its lists leave no image to train on; give a list for training (such as "
            "train_filenames) whose images are not for validation or test, or remove the lists."
        )
    return {split: views for split, views in splits.items() if views}


def _views_by_name(names: Sequence[str]) -> dict[str, set[int]]:
    """Map full and partial image paths to views; a bare name may stand for several."""
    views: dict[str, set[int]] = {}
    for view, name in enumerate(names):
        parts = PurePosixPath(name).parts
        for start in range(len(parts)):
            views.setdefault(str(PurePosixPath(*parts[start:])), set()).add(view)
    return views
