"""Writes a data set as shards, which training can read from a server or object storage."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from datasets.data_source import DataSource
from datasets.formats.registry import is_listed, open_scene
from datasets.formats.shards import RECORD, write_scene
from datasets.formats.splits import Split
from datasets.protocols import assign_roles
from datasets.scene_index import SceneEntry, list_entries, write_index
from utils.errors import UserError
from utils.files import locked_folder, read_json, write_text

_SPLITS: tuple[Split, ...] = ("train", "val")
SPLIT_LISTS = ("lists/train.txt", "lists/val.txt")
"""Lists of scenes in the folder of shards, for data sets that list scenes by split."""
_TEST_SOURCES = 3
"""Sources of a test view in MVSNeRF's protocol."""
_LOG = logging.getLogger(__name__)


def write_shards(
    source: DataSource, out: Path, quality: int = 100, num_workers: int = 1
) -> tuple[int, int]:
    """Write the training and validation scenes of a data set that are not in ``out`` yet.

    ``quality`` is that of JPEG; 100 writes PNG, without loss. ``num_workers`` scenes are written at
    a time. Returns the number of scenes written now, and of all scenes.
    """
    by_split = {split: list_entries(source, split) for split in _SPLITS}
    entries = {_name(entry): entry for split in _SPLITS for entry in by_split[split]}
    folders = {entry.folder.resolve() for split in _SPLITS for entry in by_split[split]}
    if len(entries) < len(folders):
        raise UserError(f"{source.folder}: two scenes have one name; rename one of them.")
    listed = is_listed(source.name, source.folder) and not source.scan
    training = {_name(entry) for entry in by_split["train"]}
    # The shards record explicitly which views training and validation of the source use.
    shards = [
        replace(entry, splits=_splits(source.name, entry, listed, name in training))
        for name, entry in entries.items()
    ]
    out.mkdir(parents=True, exist_ok=True)
    with locked_folder(out, "Wait for it, or choose another place with --out."):
        with ThreadPoolExecutor(num_workers) as pool:
            jobs = pool.map(lambda shard: _write_shard(source, shard, out, quality), shards)
            written = sum(jobs)
        if listed:
            for split, name in zip(_SPLITS, SPLIT_LISTS, strict=True):
                names = "\n".join(_name(entry) for entry in by_split[split])
                write_text(out / name, f"{names}\n")
        write_index("shards", out, [replace(shard, folder=out / _name(shard)) for shard in shards])
    return written, len(shards)


def _splits(
    name: str, entry: SceneEntry, listed: bool, is_training: bool
) -> Mapping[Split, tuple[int, ...]]:
    if entry.splits.get("train"):
        return entry.splits
    roles = assign_roles(name, entry, "val", listed, _TEST_SOURCES)
    return {"train": entry.views if is_training and listed else roles.pool, "val": roles.targets}


def _write_shard(source: DataSource, shard: SceneEntry, out: Path, quality: int) -> bool:
    """Write one scene; return False if the same shard exists already."""
    folder = out / _name(shard)
    settings = [str(shard.folder.resolve()), source.name, asdict(source.options), quality]
    # JSON turns tuples into lists.
    settings = json.loads(json.dumps(settings))
    if (folder / RECORD).is_file():
        if read_json(folder / RECORD, "shard").get("written") == settings:
            return False
        raise UserError(
            f"{folder}: was written from other data or with other settings; choose an empty "
            "folder with --out."
        )
    scene = open_scene(source.name, shard.folder, source.options)
    scene = replace(scene, name=_name(shard), splits=shard.splits)
    write_scene(scene, folder, quality, written=settings)
    _LOG.info("%s: %d views", folder, len(scene.view_ids))
    return True


def _name(entry: SceneEntry) -> str:
    return entry.folder.resolve().name
