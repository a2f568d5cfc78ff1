"""A data set rewritten as shards, for training beyond one disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from datasets.config import DataSource
from datasets.formats.registry import is_listed, open_scene
from datasets.formats.shards import RECORD, write_scene
from datasets.formats.splits import Split
from datasets.protocols import assign_roles
from datasets.scene_index import SceneEntry, list_entries, write_index
from utils.errors import UserError
from utils.files import read_json, write_text
from utils.locks import locked_folder

_SPLITS: tuple[Split, ...] = ("train", "val")
SPLIT_LISTS = ("lists/train.txt", "lists/val.txt")
"""Of the folder of shards, where the data set lists scenes by split."""
_TEST_SOURCES = 3
"""Sources of a test view in MVSNeRF's protocol."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardWriter:
    """Writes the scenes of a data set, for training and for validation."""

    source: DataSource
    out: Path
    quality: int = 100
    """Of JPEG; 100: PNG, without loss."""
    num_workers: int = 1
    """Scenes at once."""

    def write(self) -> tuple[int, int]:
        """Write what is not yet there; return the scenes that were written, and those that are."""
        source = self.source
        by_split = {split: list_entries(source, split) for split in _SPLITS}
        entries = {_name(entry): entry for split in _SPLITS for entry in by_split[split]}
        folders = {entry.folder.resolve() for split in _SPLITS for entry in by_split[split]}
        if len(entries) < len(folders):
            raise UserError(f"{source.folder}: two scenes have one name; rename one of them.")
        listed = is_listed(source.name, source.folder) and not source.scan
        training = {_name(entry) for entry in by_split["train"]}
        jobs = [
            (entry, self._splits(entry, listed, name in training))
            for name, entry in entries.items()
        ]
        self.out.mkdir(parents=True, exist_ok=True)
        with locked_folder(self.out, "Wait for it, or choose another place with --out."):
            with ThreadPoolExecutor(self.num_workers) as pool:
                written = sum(pool.map(lambda job: self._write_scene(*job), jobs))
            if listed:
                for split, name in zip(_SPLITS, SPLIT_LISTS, strict=True):
                    names = "\n".join(_name(entry) for entry in by_split[split])
                    write_text(self.out / name, f"{names}\n")
            write_index("shards", self.out, [self._entry(*job) for job in jobs])
        return written, len(jobs)

    def _splits(
        self, entry: SceneEntry, listed: bool, trained: bool
    ) -> Mapping[Split, tuple[int, ...]]:
        """Return which views training shows and validation renders, as the source's format does."""
        if entry.splits.get("train"):
            return entry.splits
        roles = assign_roles(self.source.name, entry, "val", listed, _TEST_SOURCES)
        shown = entry.views if trained and listed else roles.pool
        return {"train": shown, "val": roles.targets}

    def _entry(self, entry: SceneEntry, splits: Mapping[Split, tuple[int, ...]]) -> SceneEntry:
        return replace(entry, folder=self.out / _name(entry), splits=splits)

    def _write_scene(self, entry: SceneEntry, splits: Mapping[Split, tuple[int, ...]]) -> bool:
        """Write a scene, unless it is there as it would be written."""
        folder, source = self.out / _name(entry), self.source
        place = str(entry.folder.resolve())
        # As JSON has it: lists for tuples.
        how = json.loads(json.dumps([place, source.name, asdict(source.options), self.quality]))
        if (folder / RECORD).is_file():
            if read_json(folder / RECORD, "shard").get("written") == how:
                return False
            raise UserError(
                f"{folder}: was written from other data, or in another way; choose an empty "
                "folder with --out."
            )
        scene = open_scene(source.name, entry.folder, source.options)
        scene = replace(scene, name=_name(entry), splits=splits)
        write_scene(scene, folder, self.quality, written=how)
        _LOG.info("%s: %d views", folder, len(scene.view_ids))
        return True


def _name(entry: SceneEntry) -> str:
    return entry.folder.resolve().name
