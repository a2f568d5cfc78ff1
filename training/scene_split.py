"""Which views of one scene are trained on, and which are kept for testing."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path

import torch

from datasets.formats.registry import find_scenes
from datasets.posed_scene import PosedScene, held_out_views
from datasets.views import Views
from evaluation.config import DataChoice, HeldOutScenes
from evaluation.photographs import READERS, split_scan
from evaluation.scores import Region
from evaluation.worlds import world_tasks
from utils.errors import UserError

MIN_TRAINING_VIEWS = MIN_SOURCES = 2


@dataclass(frozen=True)
class SceneSplit:
    """A scene, divided."""

    scene: PosedScene
    train_ids: tuple[int, ...]
    test_ids: tuple[int, ...]
    region: Region
    """Pixels of the test views that count."""
    train_on_all_pixels: bool = False
    """Masks of the training views say where depth is known, not which pixels are good."""

    def training_views(self) -> Views:
        """Read the training views; what depth they have stays on the disk's side.

        Raises:
            UserError: A file is damaged.
        """
        views = self.scene.load_views(self.train_ids)
        masks = torch.ones_like(views.masks) if self.train_on_all_pixels else views.masks
        return dataclasses.replace(views, depths=torch.zeros_like(views.depths), masks=masks)

    def test_views(self) -> Views:
        """Read the test views.

        Raises:
            UserError: A file is damaged.
        """
        return self.scene.load_views(self.test_ids)


def read_split(choice: DataChoice, num_sources: int) -> SceneSplit:
    """Find the scene and divide its views.

    DTU and LLFF's fern are divided as MVSNeRF divides them (16 training views, 4 test views),
    other scenes in LLFF's layout and all with a ``transforms.json`` by NeRF's rule: every eighth
    view is for testing. ``choice.targets`` and ``choice.sources`` choose otherwise.

    Args:
        choice: The data; a folder of scenes must hold one only.
        num_sources: Source views that a rendering will use.

    Raises:
        UserError: There is no such scene, or too few of its views are there.
    """
    _check_folder(choice)
    # The readers count sources for one target at a time; all that matters here is that there are.
    reading = dataclasses.replace(choice, n_views=1)
    if choice.dataset_name == "procedural":
        tasks = [next(iter(world_tasks(HeldOutScenes(num_worlds=1, world_views=20), reading)))]
    else:
        tasks = READERS[choice.dataset_name](reading)
    if len(tasks) > 1:
        names = [task.scene.name for task in tasks]
        raise UserError(
            f"{choice.datadir}: holds {len(names)} scenes ({', '.join(names[:4])}, ...), but one "
            f"is fine-tuned at a time; point --datadir at it: {choice.datadir}/{names[0]}"
        )
    task = tasks[0]
    targets, pool = task.targets, task.pool
    if choice.dataset_name == "transforms" and not choice.targets:
        targets = held_out_views(task.scene)
        pool = tuple(view for view in choice.sources or task.scene.view_ids if view not in targets)
    split = SceneSplit(
        task.scene, pool, targets, task.region, train_on_all_pixels=choice.dataset_name == "dtu"
    )
    _check_views(split, num_sources)
    return split


def _check_views(split: SceneSplit, num_sources: int) -> None:
    scene, count = split.scene.name, len(split.train_ids)
    if not split.test_ids:
        raise UserError(
            f"Scene {scene!r} has no view to test on; choose some of its {count} with --targets."
        )
    if num_sources < MIN_SOURCES:
        raise UserError(
            f"--n_views {num_sources}: the depth of a view is what other views agree on; "
            f"fine-tuning renders from at least {MIN_SOURCES}."
        )
    if count < MIN_TRAINING_VIEWS:
        raise UserError(
            f"Scene {scene!r}: {count} training views are left beside {len(split.test_ids)} test "
            f"views; a view is trained from others, so at least {MIN_TRAINING_VIEWS} are needed. "
            "Choose fewer --targets or more --sources."
        )


def _check_folder(choice: DataChoice) -> None:
    """Refuse a folder that is not there, with the names of those that are.

    Raises:
        UserError: There is no such scene.
    """
    folder = Path(choice.datadir)
    if choice.dataset_name == "procedural":
        return
    if choice.dataset_name == "dtu":
        root, scan = split_scan(folder)
        wanted = scan or choice.scans
        scans = _scans_of(root)
        if scans and wanted and wanted not in scans and "," not in wanted:
            raise UserError(f"{root}: there is no scan {wanted!r}{_nearest(wanted, scans)}")
    elif not folder.exists():
        scenes = find_scenes(choice.dataset_name, folder.parent)
        others = [path.name for path in scenes if path != folder.parent]
        raise UserError(f"{folder}: there is no such scene{_nearest(folder.name, others)}")


def _scans_of(root: Path) -> list[str]:
    folders = (root / "Rectified").glob("*/")
    return sorted({folder.name.removesuffix("_train") for folder in folders})


def _nearest(wanted: str, names: list[str]) -> str:
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.3) or sorted(names)[:3]
    return f"; the nearest names there: {', '.join(close)}" if close else "; the folder has none"
