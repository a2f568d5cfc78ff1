"""What a large data set holds, written down once, so that a training starts without looking.

``python -m apps.inspect_data --write_index`` makes ``scenes.json`` in the data folder: for each
scene its number of views, the size of its images and, where the scene has some, its own splits.
A scene is then opened when one of its views is needed first.
"""

from __future__ import annotations

import json
import logging
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from datasets.formats.images import Size
from datasets.formats.registry import ReadOptions, SceneFormat, find_split, open_scene, split_scenes
from datasets.posed_scene import PosedScene, held_out_views
from datasets.view_selection import Split
from utils.errors import UserError

INDEX_NAME = "scenes.json"
_MAX_BYTES = 1 << 30
_LOG = logging.getLogger(__name__)
_REPORT_EVERY = 500
_INDEX_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What JSON that is no index raises; infinity for a count, for one."""


@dataclass(frozen=True)
class SceneEntry:
    """One scene, as far as planning an epoch needs it."""

    folder: Path
    views: int
    size: Size
    """Of the images on disk."""
    splits: Mapping[str, tuple[int, ...]]
    """The scene's own."""


@dataclass(frozen=True)
class Roles:
    """What the views of a scene are for, in one split."""

    targets: tuple[int, ...]
    pool: tuple[int, ...]
    """Views that sources are taken from."""


def list_entries(
    name: SceneFormat, root: Path, split: Split, options: ReadOptions
) -> list[SceneEntry]:
    """Return the scenes of a split: from the index if there is one, else by opening them all.

    Raises:
        UserError: A list, the index or a scene is missing or malformed.
    """
    folders = split_scenes(name, root, split) if _has_list(root, split) else None
    index = read_index(name, root)
    if index is not None:
        chosen = [folder.name for folder in folders] if folders is not None else list(index)
        absent = [scene for scene in chosen if scene not in index]
        if absent:
            raise UserError(
                f"{root / INDEX_NAME}: lacks {absent[0]!r}, which the list of {split} scenes "
                "names. Write it again with python -m apps.inspect_data --write_index."
            )
        return [index[scene] for scene in chosen]
    folders = folders if folders is not None else split_scenes(name, root, split)
    entries = []
    for number, folder in enumerate(folders, start=1):
        entries.append(describe(open_scene(name, folder, options), folder))
        if number % _REPORT_EVERY == 0:
            _LOG.info(
                "%s: %d of %d scenes opened; python -m apps.inspect_data --write_index saves "
                "this next time",
                *(root, number, len(folders)),
            )
    return entries


def describe(scene: PosedScene, folder: Path) -> SceneEntry:
    """Note what planning needs of a scene."""
    splits = {str(split): views for split, views in scene.splits.items()}
    return SceneEntry(folder, len(scene.view_ids), scene.image_size, splits)


def write_index(name: SceneFormat, root: Path, entries: Sequence[SceneEntry]) -> Path:
    """Write the index of a data set, whole or not at all.

    Raises:
        UserError: The folder cannot be written to.
    """
    scenes = {
        entry.folder.name: {"views": entry.views, "size": entry.size, "splits": entry.splits}
        for entry in entries
    }
    path, partial = root / INDEX_NAME, root / f".{INDEX_NAME}.partial"
    try:
        partial.write_text(json.dumps({"format": name, "scenes": scenes}), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot write the index ({error.strerror}).") from error
    return path


def read_index(name: SceneFormat, root: Path) -> dict[str, SceneEntry] | None:
    """Read the index of a data set, if there is one.

    Raises:
        UserError: It is damaged, or of another format.
    """
    path = root / INDEX_NAME
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: larger than any index ({_MAX_BYTES} bytes at most).")
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != name:
            stated = reprlib.repr(content["format"])
            raise UserError(f"{path}: is of {stated} scenes, not of {name!r}.")
        return {scene: _entry(root / scene, row) for scene, row in content["scenes"].items()}
    except _INDEX_ERRORS as error:
        raise UserError(
            f"{path}: not a readable index ({str(error)[:120]}). Remove it, or write it again with "
            "python -m apps.inspect_data --write_index."
        ) from error


def assign_roles(
    views: int, splits: Mapping[str, tuple[int, ...]], split: Split, listed: bool
) -> Roles:
    """Decide which views of a scene are rendered and which may be sources.

    A scene's own splits count. Else, where the data set lists scenes by split, a training scene
    gives all its views, and of any other every eighth is rendered from the rest. Where it does
    not, every eighth view of each scene is kept from training, and validated on.

    Args:
        views: How many views the scene has.
        splits: The scene's own, if it has some.
        split: What for.
        listed: Whether scenes were chosen by a list of the split.
    """
    if splits.get("train"):
        train = splits["train"]
        held = splits.get(split) or splits.get("val") or splits.get("test") or train[::8]
        return Roles(train, train) if split == "train" else Roles(held, train)
    return _plain_roles(views, split == "train", listed)


def is_listed(root: Path) -> bool:
    """Say whether the data set lists scenes for training and others for validation."""
    return find_split(root, "train") is not None and find_split(root, "val") is not None


@lru_cache
def _plain_roles(views: int, train: bool, listed: bool) -> Roles:
    everything = tuple(range(views))
    if train and listed:
        return Roles(everything, everything)
    held = held_out_views(everything)
    rest = tuple(sorted(set(everything).difference(held)))
    return Roles(rest, rest) if train else Roles(held, rest)


def _has_list(root: Path, split: Split) -> bool:
    return find_split(root, split) is not None


def _entry(folder: Path, row: Any) -> SceneEntry:  # noqa: ANN401
    height, width = (int(side) for side in row["size"])
    splits = {
        str(split): tuple(int(view) for view in views) for split, views in row["splits"].items()
    }
    views = int(row["views"])
    if views < 1 or any(not 0 <= view < views for ids in splits.values() for view in ids):
        raise ValueError(f"{folder.name}: {views} views with splits that name others")
    return SceneEntry(folder, views, (height, width), splits)
