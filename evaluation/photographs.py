"""Scenes on disk under the protocols by which they are compared.

DTU, and LLFF's fern, as MVSNeRF measures them (Chen et al., ICCV 2021), whichever reader they come
through; NeRF's synthetic scenes at four views spread over their test images, from their training
images; other scenes by NeRF's split, the first of every eight views (Mildenhall et al., ECCV 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from datasets.formats.dtu import DTUDataset
from datasets.formats.images import Size
from datasets.formats.llff import FERN_POOL, FERN_TARGETS
from datasets.formats.registry import (
    SCENE_FORMATS,
    ReadOptions,
    SceneFormat,
    open_scene,
    split_scenes,
)
from datasets.posed_scene import PosedScene, held_out_views
from datasets.view_selection import choose_held_out
from evaluation.config import DataChoice
from evaluation.scores import Region
from evaluation.tasks import Protocol, SceneTask, plan_task

_DTU_REGION = Region(known_depth_only=True)
_FORWARD_FACING = Region(border=0.1)
_WHOLE = Region()
_BLENDER_TARGETS = 4
_LLFF_SIZE = (640, 960)
_FOX_TARGETS, _FOX_SIZE, _FOX_NEAR_FAR = (5, 15, 25, 35), (640, 360), (1.2, 9.0)
"""How this project measures instant-ngp's fox, for which the field has no protocol."""


def dtu_tasks(choice: DataChoice) -> list[SceneTask]:
    """Return the test scans of a DTU folder, or those that are named.

    Raises:
        UserError: The folder or a file in it is missing or malformed, or views are.
    """
    root, scan = split_scan(Path(choice.datadir))
    named = [name.strip() for name in choice.scans.split(",") if name.strip()]
    names = ([scan] if scan else named) or None
    dataset = DTUDataset(
        root, "test", image_scale=choice.image_scale, max_sources=choice.n_views, scans=names
    )
    tasks = []
    for name in dataset.scan_names:
        scene = dataset.posed_scene(name)
        targets, pool = choose_held_out(scene.view_ids, choice.n_views)
        tasks.append(plan_task(scene, Protocol(targets, pool, _DTU_REGION), choice))
    return tasks


def scene_tasks(name: SceneFormat, choice: DataChoice) -> list[SceneTask]:
    """Return a scene of its own folder, or all test scenes in a folder.

    Raises:
        UserError: A file is missing or malformed, or views are.
    """
    tasks = []
    for folder in split_scenes(name, Path(choice.datadir), "test"):
        scene_name = folder.resolve().name
        options = ReadOptions(
            size=choice.size or _protocol_size(name, scene_name),
            near_far=_near_far(name, scene_name, choice),
            background=1.0 if choice.background == "white" else 0.0,
        )
        scene = open_scene(name, folder, options)
        tasks.append(plan_task(scene, _protocol(name, scene), choice))
    return tasks


READERS: dict[str, Callable[[DataChoice], list[SceneTask]]] = {
    "dtu": dtu_tasks,
    **{name: partial(scene_tasks, name) for name in SCENE_FORMATS},
}
"""By ``dataset_name``."""


def split_scan(folder: Path) -> tuple[Path, str | None]:
    """Take ``data/dtu/scan2`` apart; a folder that holds the data itself is taken whole."""
    has_cameras = (folder / "Cameras").is_dir()
    beside_cameras = (folder.parent / "Cameras").is_dir()
    return (folder.parent, folder.name) if beside_cameras and not has_cameras else (folder, None)


def _protocol_size(name: SceneFormat, scene: str) -> Size | None:
    if name == "llff" or (name == "colmap" and scene == "fern"):
        return _LLFF_SIZE
    return _FOX_SIZE if name == "transforms" and scene == "fox" else None


def _near_far(name: SceneFormat, scene: str, choice: DataChoice) -> tuple[float, float] | None:
    if choice.near_far:
        return choice.near_far[0], choice.near_far[1]
    return _FOX_NEAR_FAR if name == "transforms" and scene == "fox" else None


def _protocol(name: SceneFormat, scene: PosedScene) -> Protocol:
    if name in ("llff", "colmap") and scene.name == "fern":
        return Protocol(FERN_TARGETS, FERN_POOL, _FORWARD_FACING)
    if name == "transforms" and scene.name == "fox":
        return Protocol(_FOX_TARGETS, scene.view_ids, _FORWARD_FACING)
    if name == "blender":
        return _blender_protocol(scene)
    region = _WHOLE if name == "blendedmvs" else _FORWARD_FACING
    return Protocol(held_out_views(scene), scene.view_ids, region)


def _blender_protocol(scene: PosedScene) -> Protocol:
    tested = scene.splits.get("test") or scene.splits.get("val")
    if not tested:
        return Protocol(held_out_views(scene), scene.view_ids, _WHOLE)
    count = min(_BLENDER_TARGETS, len(tested))
    targets = [tested[(2 * place + 1) * len(tested) // (2 * count)] for place in range(count)]
    return Protocol(targets, scene.splits["train"], _WHOLE)
