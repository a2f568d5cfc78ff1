"""Scenes on disk under the protocols by which they are compared.

DTU, and LLFF's fern, as MVSNeRF measures them (Chen et al., ICCV 2021); other scenes by NeRF's
split, the first of every eight views (Mildenhall et al., ECCV 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from datasets.dtu import DTUDataset
from datasets.llff import FERN_POOL, FERN_TARGETS, read_llff
from datasets.posed_scene import PosedScene, held_out_views
from datasets.transforms import read_transforms
from datasets.view_selection import choose_held_out
from models.evaluation.config import DataChoice
from models.evaluation.scores import Region
from models.evaluation.tasks import Protocol, SceneTask, plan_task

_DTU_REGION = Region(known_depth_only=True)
_FORWARD_FACING = Region(border=0.1)
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


def llff_tasks(choice: DataChoice) -> list[SceneTask]:
    """Return a scene in LLFF's layout, or all in a folder.

    Raises:
        UserError: A file is missing or malformed, or views are.
    """
    tasks = []
    for folder in scene_folders(Path(choice.datadir), "poses_bounds.npy"):
        scene = read_llff(folder, choice.size or _LLFF_SIZE)
        protocol = _every_eighth(scene)
        if scene.name == "fern":
            protocol = Protocol(FERN_TARGETS, FERN_POOL, _FORWARD_FACING)
        tasks.append(plan_task(scene, protocol, choice))
    return tasks


def transforms_tasks(choice: DataChoice) -> list[SceneTask]:
    """Return a scene with a ``transforms.json``, or all in a folder.

    Raises:
        UserError: A file is missing or malformed, or views are.
    """
    near_far = (choice.near_far[0], choice.near_far[1]) if choice.near_far else None
    tasks = []
    for folder in scene_folders(Path(choice.datadir), "transforms.json"):
        fox = folder.resolve().name == "fox"
        scene = read_transforms(
            folder,
            choice.size or (_FOX_SIZE if fox else None),
            near_far=near_far or (_FOX_NEAR_FAR if fox else None),
        )
        protocol = _every_eighth(scene)
        if fox:
            protocol = Protocol(_FOX_TARGETS, scene.view_ids, _FORWARD_FACING)
        tasks.append(plan_task(scene, protocol, choice))
    return tasks


READERS: dict[str, Callable[[DataChoice], list[SceneTask]]] = {
    "dtu": dtu_tasks,
    "llff": llff_tasks,
    "transforms": transforms_tasks,
}
"""By ``dataset_name``."""


def split_scan(folder: Path) -> tuple[Path, str | None]:
    """Take ``data/dtu/scan2`` apart; a folder that holds the data itself is taken whole."""
    has_cameras = (folder / "Cameras").is_dir()
    beside_cameras = (folder.parent / "Cameras").is_dir()
    return (folder.parent, folder.name) if beside_cameras and not has_cameras else (folder, None)


def scene_folders(folder: Path, marker: str) -> list[Path]:
    """Return the folder itself if it is a scene, else the scenes in it, else the folder.

    Args:
        folder: What the user gave; may be a file.
        marker: The file that makes a folder a scene.
    """
    if not folder.is_dir() or (folder / marker).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{marker}")) or [folder]


def _every_eighth(scene: PosedScene) -> Protocol:
    return Protocol(held_out_views(scene), scene.view_ids, _FORWARD_FACING)
