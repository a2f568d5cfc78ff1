"""What lies in a data folder, whatever its format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from datasets.formats.dtu import DTUDataset
from datasets.formats.images import Size
from datasets.formats.registry import ReadOptions, find_split, open_scene, split_scenes
from datasets.posed_scene import PosedScene
from datasets.scene_index import SceneEntry, assign_roles, describe, is_listed
from datasets.sources import DataSource
from datasets.view_selection import Split
from utils.errors import UserError

MAX_SIDE = 1000
"""Longer side of the images that are looked at."""
_SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class FoundScene:
    """One scene, opened at its own size or at one that is quick to look at."""

    scene: PosedScene
    """As training would read it."""
    splits: dict[str, int]
    """Targets of training, validation and test."""
    reduced: Callable[[], PosedScene]
    """Opens it again with images of at most ``MAX_SIDE``."""
    entry: SceneEntry | None
    """For the index; DTU has none."""


@dataclass(frozen=True)
class Stock:
    """All scenes that were found, and what training could not read."""

    scenes: list[FoundScene]
    broken: list[str]
    """One message for each scene; for DTU for each split that training needs."""
    listed: str
    """How scenes belong to splits."""


def take_stock(source: DataSource) -> Stock:
    """Open every scene of a data set.

    Raises:
        UserError: There is none, or the folder is not of this format.
    """
    return _dtu_stock(source) if source.name == "dtu" else _scene_stock(source)


def reduced_size(size: Size) -> Size:
    """Return the size at which images are looked at."""
    shrink = min(1.0, MAX_SIDE / max(size))
    return max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))


def _scene_stock(source: DataSource) -> Stock:
    root, options = source.folder, source.options
    listed = is_listed(root)
    chosen: dict[Path, set[Split]] = {}
    for split in _SPLITS:
        for folder in split_scenes(source.scene_format, root, split):
            chosen.setdefault(folder, set()).add(split)
    scenes, broken = [], []
    for folder, splits in chosen.items():
        try:
            scene = open_scene(source.scene_format, folder, options)
        except UserError as error:
            broken.append(str(error))
            continue
        entry = describe(scene, folder)
        counts = {
            split: len(assign_roles(entry.views, entry.splits, split, listed).targets)
            for split in _SPLITS
            if split in splits
        }
        scenes.append(FoundScene(scene, counts, _reopen(source, folder, scene), entry))
    if not scenes:
        raise UserError(broken[0])
    lists = [path.name for split in _SPLITS if (path := find_split(root, split)) is not None]
    how = f"lists {', '.join(dict.fromkeys(lists))}" if lists else "no lists of scenes"
    return Stock(scenes, broken, how)


def _reopen(source: DataSource, folder: Path, scene: PosedScene) -> Callable[[], PosedScene]:
    def reduced() -> PosedScene:
        size = reduced_size(scene.image_size)
        if size == scene.image_size:
            return scene
        options: ReadOptions = replace(source.options, size=size)
        return open_scene(source.scene_format, folder, options)

    return reduced


def _dtu_stock(source: DataSource) -> Stock:
    scenes: dict[str, FoundScene] = {}
    problems: dict[Split, str] = {}
    for split in _SPLITS:
        try:
            dataset = DTUDataset(source.folder, split, max_sources=1, num_nearest=1)
        except UserError as error:
            problems[split] = f"{split}: {error}"
            continue
        targets = len(dataset) // len(dataset.scan_names)
        for name in dataset.scan_names:
            known = scenes.get(name)
            scene = dataset.posed_scene(name) if known is None else known.scene
            counts = {**({} if known is None else known.splits), split: targets}
            scenes[name] = FoundScene(scene, counts, lambda scene=scene: scene, None)
    if not scenes:
        raise UserError(problems["train"])
    # Training reads two of the splits; those who do not evaluate need no scans for the third.
    broken = [problems[split] for split in _SPLITS[:2] if split in problems]
    return Stock(list(scenes.values()), broken, "scans by lists")
