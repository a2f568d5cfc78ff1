"""Index of a large data set, so that training starts without opening every scene.

``python -m apps.inspect_data --write_index`` writes ``scenes.json`` into the data folder: the
views, the image size and the splits of each scene.
"""

from __future__ import annotations

import json
import logging
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from datasets.data_source import DataSource
from datasets.formats.format_table import FORMATS
from datasets.formats.images.photos import common_size
from datasets.formats.options import Size
from datasets.formats.registry import choose_scenes, open_scene
from datasets.formats.splits import SPLITS, Split, find_scene_list
from datasets.posed_scene import PosedScene
from utils.errors import UserError, first_line
from utils.files import read_json, whole_number, write_text

INDEX_NAME = "scenes.json"
REWRITE = "Write it again with python -m apps.inspect_data --write_index."
_MAX_VIEWS = 1 << 21
"""Bound on the sum of the distinct view counts in an index."""
_LOG = logging.getLogger(__name__)
_REPORT_EVERY = 500
_INDEX_ERRORS = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""Raised by valid JSON that is no index, such as an infinite count."""


@dataclass(frozen=True)
class SceneEntry:
    """What planning an epoch needs of a scene."""

    folder: Path
    views: tuple[int, ...]
    size: Size
    """Size at which images are read; in the index file, their size on disk."""
    splits: Mapping[Split, tuple[int, ...]]


def list_entries(source: DataSource, split: Split) -> list[SceneEntry]:
    """Return the scenes of a split, from the index or else by opening all of them."""
    name, root = source.name, source.folder
    index = {
        scene: replace(entry, size=source.options.target_size(entry.size))
        for scene, entry in (read_index(name, root) or {}).items()
    }
    chosen = bool(source.scan) or find_scene_list(root, split) is not None
    if index and not chosen:
        return list(index.values())
    folders = choose_scenes(name, root, source.scan, split)
    if index:
        missing = [folder.name for folder in folders if folder.name not in index]
        if missing:
            raise UserError(
                f"{root / INDEX_NAME}: lacks {missing[0]!r}, which is a chosen or listed {split} "
                f"scene. {REWRITE}"
            )
        return [index[folder.name] for folder in folders]
    entries = []
    for number, folder in enumerate(folders, start=1):
        entries.append(describe(open_scene(name, folder, source.options), folder))
        if number % _REPORT_EVERY == 0:
            _LOG.info(
                "%s: %d of %d scenes opened; python -m apps.inspect_data --write_index saves "
                "this time in later runs",
                *(root, number, len(folders)),
            )
    if FORMATS[name].shares_cameras:
        common_size(folders, [entry.size for entry in entries])
    return entries


def describe(scene: PosedScene, folder: Path) -> SceneEntry:
    """Return the index entry of an open scene."""
    return SceneEntry(folder, scene.view_ids, scene.image_size, dict(scene.splits))


def write_index(name: str, root: Path, entries: Sequence[SceneEntry]) -> Path:
    """Write the index of a data set atomically."""
    scenes = {}
    for entry in entries:
        count = len(entry.views)
        views = count if entry.views == _first_views(count) else entry.views
        scenes[entry.folder.name] = {"views": views, "size": entry.size, "splits": entry.splits}
    path = root / INDEX_NAME
    write_text(path, json.dumps({"format": name, "scenes": scenes}))
    return path


def read_index(name: str, root: Path) -> dict[str, SceneEntry] | None:
    """Read the index of a data set, if there is one."""
    path = root / INDEX_NAME
    if not path.is_file():
        return None
    try:
        content = read_json(path, "index", remedy=f"Remove it. {REWRITE}")
        if content["format"] != name:
            stated = reprlib.repr(content["format"])
            raise UserError(f"{path}: is of {stated} scenes, not of {name!r}.")
        views = [row["views"] for row in content["scenes"].values()]
        total = sum({whole_number(count) for count in views if not isinstance(count, list)})
        if total > _MAX_VIEWS:
            raise ValueError(f"{total} views")
        return {
            scene: _entry(_folder(root, scene), row) for scene, row in content["scenes"].items()
        }
    except _INDEX_ERRORS as error:
        raise UserError(
            f"{path}: not a readable index ({first_line(error)}). Remove it. {REWRITE}"
        ) from error


def _folder(root: Path, scene: str) -> Path:
    if scene in ("", "..") or Path(scene).name != scene:
        raise ValueError(f"{reprlib.repr(scene)} is not the name of a folder")
    return root / scene


def _entry(folder: Path, row: Any) -> SceneEntry:  # noqa: ANN401
    height, width = map(whole_number, row["size"])
    listed = row["views"]
    views = tuple(map(whole_number, listed)) if isinstance(listed, list) else _first_views(listed)
    splits: dict[Split, tuple[int, ...]] = {
        split: tuple(map(whole_number, row["splits"][split]))
        for split in SPLITS
        if split in row["splits"]
    }
    in_splits = {view for ids in splits.values() for view in ids}
    if len(set(views)) != len(views) or min(height, width, *views) < 0:
        raise ValueError(f"{folder.name}: a view twice, or a negative number")
    if not views or row["splits"].keys() - set(SPLITS) or in_splits - set(views):
        raise ValueError(f"{folder.name}: {len(views)} views, but its splits name others")
    return SceneEntry(folder, views, (height, width), splits)


@lru_cache
def _first_views(count: int) -> tuple[int, ...]:
    return tuple(range(count))
