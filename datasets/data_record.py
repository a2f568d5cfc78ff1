"""What a run is trained on, as its checkpoints record it, so that a resumed run notes a change.

Of scenes spread evenly over the data, image files are known by their size and a piece of their
content, and cameras by their mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from datasets.formats.messages import join_names
from datasets.posed_scene import PosedScene
from datasets.scene_dataset import SceneDataset
from utils.errors import UserError

_SCENES, _FILES, _PIECE = 32, 128, 4096
"""Scenes of each data set and files of each scene that are looked at; bytes of a file."""
_MOVED = 1e-3
"""Change of the mean camera, as a share of its largest number, that rounding does not explain."""


def record_data(
    parts: Sequence[SceneDataset], names: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Describe the scenes of these names, or some of all, and count the targets of all."""
    scenes = chain.from_iterable(part.some_scenes(_SCENES, names) for part in parts)
    described = {scene.name: _describe(scene) for scene in scenes}
    return {"scenes": described, "targets": {"count": sum(map(len, parts))}}


def check_unchanged(recorded: Mapping[str, Any], parts: Sequence[SceneDataset]) -> None:
    """Refuse data that differ from what a checkpoint recorded, and say in what."""
    now = record_data(parts, recorded["scenes"])
    changes = list(_changes(recorded, now))
    if changes:
        raise UserError(
            f"The data are no longer those that the checkpoint was trained on: "
            f"{'; '.join(changes[:3])}. Restore them, or start a new run from its weights with "
            "--init_ckpt in place of --ckpt."
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name, scene in before["scenes"].items():
        if name not in now["scenes"]:
            yield f"scene {name} is missing"
        else:
            yield from (f"{name}: {what}" for what in _changes_of(scene, now["scenes"][name]))
    counts = before["targets"]["count"], now["targets"]["count"]
    if counts[0] != counts[1]:
        yield f"there were {counts[0]} target views, there are {counts[1]}"


def _changes_of(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    images, others = before["images"], now["images"]
    kinds = {
        "missing": [name for name in images if name not in others],
        "new": [name for name in others if name not in images],
        "replaced": [name for name in images if others.get(name, images[name]) != images[name]],
    }
    for what, names in kinds.items():
        if names:
            yield f"{len(names)} images are {what} ({join_names(names)})"
    largest = max(map(abs, before["cameras"]))
    pairs = zip(before["cameras"], now["cameras"], strict=True)
    if not any(kinds.values()) and any(abs(a - b) > _MOVED * largest for a, b in pairs):
        yield "its cameras are others"


def _describe(scene: PosedScene) -> dict[str, Any]:
    files = scene.image_files[:: -(-len(scene.image_files) // _FILES) or 1]
    cameras = scene.cameras.c2w[:, :3].mean(0).flatten().tolist()
    return {"images": {path.name: _digest(path) for path in files}, "cameras": cameras}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(size // 2)
        return hashlib.sha256(size.to_bytes(8) + file.read(_PIECE)).hexdigest()[:12]
