"""Fingerprint of the training data in checkpoints, so that a resumed run detects changed data.

It covers scenes spread evenly over the data: of image files the size and a part of the content, of
cameras the mean pose.
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

_MAX_SCENES, _MAX_FILES = 32, 128
"""Scenes of each data set, and files of each scene, that are hashed."""
_HASHED_BYTES = 4096
_CAMERA_TOLERANCE = 1e-3
"""Change of the mean pose relative to its largest entry: more than rounding explains."""


def fingerprint_data(
    parts: Sequence[SceneDataset], names: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Fingerprint the named scenes, by default a selection, and count the targets of all scenes."""
    scenes = chain.from_iterable(part.selected_scenes(_MAX_SCENES, names) for part in parts)
    fingerprints = {scene.name: _fingerprint_scene(scene) for scene in scenes}
    return {"scenes": fingerprints, "targets": {"count": sum(map(len, parts))}}


def check_unchanged(recorded: Mapping[str, Any], parts: Sequence[SceneDataset]) -> None:
    """Refuse data that differ from the fingerprint in a checkpoint, and list the differences."""
    current = fingerprint_data(parts, recorded["scenes"])
    changes = list(_differences(recorded, current))
    if changes:
        raise UserError(
            f"The data have changed since the checkpoint was written: {'; '.join(changes[:3])}. "
            "Restore them, or start a new run from its weights with --init_ckpt in place of --ckpt."
        )


def _differences(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> Iterator[str]:
    for name, scene in recorded["scenes"].items():
        if name not in current["scenes"]:
            yield f"scene {name} is missing"
        else:
            differences = _scene_differences(scene, current["scenes"][name])
            yield from (f"{name}: {difference}" for difference in differences)
    before, after = recorded["targets"]["count"], current["targets"]["count"]
    if before != after:
        yield f"there were {before} target views, there are {after}"


def _scene_differences(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> Iterator[str]:
    old, new = recorded["images"], current["images"]
    changed = {
        "missing": [name for name in old if name not in new],
        "new": [name for name in new if name not in old],
        "replaced": [name for name in old if new.get(name, old[name]) != old[name]],
    }
    for kind, names in changed.items():
        if names:
            yield f"{len(names)} images are {kind} ({join_names(names)})"
    tolerance = _CAMERA_TOLERANCE * max(map(abs, recorded["cameras"]))
    pairs = zip(recorded["cameras"], current["cameras"], strict=True)
    if not any(changed.values()) and any(abs(a - b) > tolerance for a, b in pairs):
        yield "its cameras have changed"


def _fingerprint_scene(scene: PosedScene) -> dict[str, Any]:
    files = scene.image_files[:: -(-len(scene.image_files) // _MAX_FILES) or 1]
    cameras = scene.cameras.c2w[:, :3].mean(0).flatten().tolist()
    return {"images": {path.name: _digest(path) for path in files}, "cameras": cameras}


def _digest(path: Path) -> str:
    """Hash the size of a file and a block from its middle."""
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(size // 2)
        return hashlib.sha256(size.to_bytes(8) + file.read(_HASHED_BYTES)).hexdigest()[:12]
