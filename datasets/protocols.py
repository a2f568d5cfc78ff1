"""Roles of the views of a scene (target or source) in training, evaluation and fine-tuning.

DTU and LLFF's fern follow MVSNeRF (Chen et al., ICCV 2021), whatever format they are read from.
NeRF's synthetic scenes use four evenly spread test images as targets and the training images as
sources. Other scenes use NeRF's split: every eighth view, from the first, is a target (Mildenhall
et al., ECCV 2020).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

import torch

from datasets.config import DataChoice, HeldOutScenes
from datasets.formats.options import ReadOptions, Size, scaled_size
from datasets.formats.registry import open_scene
from datasets.formats.splits import Split
from datasets.posed_scene import PosedScene
from datasets.scene_index import SceneEntry
from datasets.view_selection import spread_evenly
from datasets.views import Views
from utils.errors import UserError

DTU_TARGETS = (32, 24, 23, 44)
"""Target views of every DTU scan in MVSNeRF's protocol."""
DTU_POOL = (25, 21, 33, 22, 14, 15, 26, 30, 31, 35, 34, 43, 46, 29, 16, 36)
"""Views among which the nearest to a target are its sources in that protocol."""
FERN_TARGETS = (12, 13, 5, 19)
FERN_POOL = (17, 2, 7, 6, 11, 1, 8, 18, 3, 16, 4, 14, 9, 10, 0, 15)
FOX_TARGETS = (5, 15, 25, 35)
"""This project's own targets for instant-ngp's fox, which has no established protocol."""
_FOX_SIZE, _FOX_NEAR_FAR = (640, 360), (1.2, 9.0)
_LLFF_SIZE = (640, 960)
_NUM_BLENDER_TARGETS = 4
_HOLD_OUT_EVERY = 8
_LOG = logging.getLogger(__name__)
_MIN_FINETUNING_VIEWS = 2
"""Fewest source views, and fewest training views, of fine-tuning."""


@dataclass(frozen=True)
class Region:
    """Which pixels of an image count in a metric."""

    border: float = 0.0
    """Fraction of width and height that is cropped at every side."""
    known_depth_only: bool = False
    """Whether pixels without ground-truth depth are excluded, in views that have such depth."""
    depth_is_complete: bool = False
    """Whether a pixel without ground-truth depth shows no surface."""


_CROPPED, _WHOLE = Region(border=0.1), Region()
_REGIONS = {"dtu": Region(known_depth_only=True), "blender": _WHOLE, "blendedmvs": _WHOLE}
"""Regions by format; all other formats have ``_CROPPED``."""


@dataclass(frozen=True)
class Protocol:
    """Target views of a scene, the pool of its source views, and the pixels that count."""

    targets: tuple[int, ...]
    pool: tuple[int, ...]
    """Views among which sources are chosen."""
    region: Region = Region()


@dataclass(frozen=True)
class SceneTask:
    """One scene to evaluate or to fine-tune on."""

    scene: PosedScene
    targets: tuple[int, ...]
    sources: tuple[tuple[int, ...], ...]
    """Sources of each target, nearest first; empty in fine-tuning, which chooses its own."""
    region: Region
    subset: str | None = None
    """Name of a subset over which metrics are also averaged."""
    pool: tuple[int, ...] = ()
    """Views other than the targets, on which fine-tuning trains."""

    def training_views(self) -> Views:
        """Read the pool with all depths set to unknown."""
        views = self.scene.training_views(self.pool)
        return replace(views, depths=torch.zeros_like(views.depths))


def held_out_views(views: Sequence[int]) -> tuple[int, ...]:
    """Return NeRF's test views: every eighth view, from the first."""
    return tuple(views[::_HOLD_OUT_EVERY])


def choose_held_out(views: Sequence[int], num_sources: int) -> Protocol:
    """Choose targets and pool of a DTU scan.

    MVSNeRF's, if the scan has all of its targets and enough of its pool. Otherwise every eighth
    view, from the fifth, is a target (the middle one of fewer than five views), the rest the pool.
    """
    pool = tuple(view for view in DTU_POOL if view in views)
    if set(DTU_TARGETS) <= set(views) and len(pool) >= num_sources:
        return Protocol(DTU_TARGETS, pool)
    ordered = sorted(views)
    targets = tuple(ordered[min(_HOLD_OUT_EVERY // 2, len(ordered) // 2) :: _HOLD_OUT_EVERY])
    return Protocol(targets, tuple(view for view in ordered if view not in targets))


def assign_roles(
    name: str, scene: SceneEntry, split: Split, listed: bool, num_sources: int
) -> Protocol:
    """Choose targets and pool of a scene in general training and its validation.

    The scene's own splits take precedence. Otherwise the test views are held out from training and
    used for validation; but if the data set lists scenes by split (``listed``), training uses all
    views of a training scene.
    """
    splits = scene.splits
    if train := splits.get("train"):
        held_out = splits.get(split) or splits.get("val") or splits.get("test")
        if split == "train":
            return Protocol(train, train)
        return Protocol(held_out or held_out_views(train), train)
    return _roles_without_splits(name, scene.views, split == "train", listed, num_sources)


@lru_cache
def _roles_without_splits(
    name: str, views: tuple[int, ...], train: bool, listed: bool, num_sources: int
) -> Protocol:
    if train and listed:
        return Protocol(views, views)
    if name == "dtu":
        roles = choose_held_out(views, num_sources)
    else:
        targets = held_out_views(views)
        roles = Protocol(targets, tuple(sorted(set(views).difference(targets))))
    return Protocol(roles.pool, roles.pool) if train else roles


def plan_task(
    scene: PosedScene, protocol: Protocol, choice: DataChoice, subset: str | None = None
) -> SceneTask:
    """Choose the targets of a scene and the sources of each."""
    targets = choice.targets or protocol.targets
    _check_sources(scene, choice.sources)
    pool = choice.sources or tuple(view for view in protocol.pool if view not in targets)
    available = min((len(set(pool) - {target}) for target in targets), default=0)
    if not available:
        raise UserError(
            f"Scene {scene.name!r}: of {len(scene.view_ids)} views none is left as a source of a "
            "test view; choose fewer --targets, or more --sources."
        )
    count = min(choice.n_views, available)
    if count < choice.n_views:
        _LOG.warning("%s: only %d source views are available (--n_views)", scene.name, count)
    return SceneTask(
        scene=scene,
        targets=targets,
        sources=tuple(scene.nearest(target, pool, count) for target in targets),
        region=protocol.region,
        subset=subset,
        pool=tuple(view for view in pool if view not in targets),
    )


def _check_sources(scene: PosedScene, sources: Sequence[int]) -> None:
    test_views = declared_test_views(scene)
    if forbidden := [str(view) for view in sources if view in test_views]:
        allowed = [str(view) for view in scene.view_ids if view not in test_views]
        raise UserError(
            f"Scene {scene.name!r}: --sources names {', '.join(forbidden)}, which its files set "
            f"apart for tests; choose others, such as --sources {' '.join(allowed[:3])}."
        )


def scene_tasks(choice: DataChoice) -> list[SceneTask]:
    """Return a task for each chosen scene of a data set on disk, or else each test scene."""
    name, tasks = choice.format_name, []
    for folder in choice.scene_folders("test"):
        scene = open_scene(name, folder, _options(name, folder.resolve().name, choice))
        tasks.append(plan_task(scene, protocol_of(name, scene, choice.n_views), choice))
    return tasks


def protocol_of(name: str, scene: PosedScene, num_sources: int) -> Protocol:
    """Return the protocol of a scene of format ``name``."""
    region = _REGIONS.get(name, _CROPPED)
    if name == "dtu":
        return replace(choose_held_out(scene.view_ids, num_sources), region=region)
    if name in ("llff", "colmap") and scene.name == "fern" and _has(scene, FERN_TARGETS):
        return Protocol(FERN_TARGETS, FERN_POOL, region)
    if _is_fox(name, scene.name) and _has(scene, FOX_TARGETS):
        return Protocol(FOX_TARGETS, scene.view_ids, region)
    if targets := declared_test_views(scene):
        if name == "blender":
            targets = tuple(spread_evenly(targets, _NUM_BLENDER_TARGETS))
        return Protocol(targets, scene.splits["train"], region)
    return Protocol(held_out_views(scene.view_ids), scene.view_ids, region)


def declared_test_views(scene: PosedScene) -> tuple[int, ...]:
    """Return the test views declared in the scene's files, or else its validation views.

    They are never trained on, nor sources in an evaluation.
    """
    return scene.splits.get("test") or scene.splits.get("val") or ()


def read_split(choice: DataChoice, num_sources: int) -> SceneTask:
    """Open the one scene to fine-tune on, and split its views into test and training views.

    The test views are the chosen targets, or else those of the protocol (for the fox every eighth).
    ``num_sources`` is the number of source views that fine-tuning renders from.
    """
    # Fine-tuning chooses its own sources, so that one for each target suffices here.
    one_source = replace(choice, n_views=1)
    if choice.dataset_name == "procedural":
        from datasets.procedural.held_out import world_tasks

        held_out = HeldOutScenes(num_worlds=1, world_views=20)
        tasks = list(islice(world_tasks(held_out, one_source), 1))
    else:
        tasks = scene_tasks(one_source)
    if len(tasks) > 1:
        names = [task.scene.name for task in tasks]
        raise UserError(
            f"{choice.datadir}: has {len(names)} scenes ({', '.join(names[:4])}, ...), but "
            f"fine-tuning takes one; point --datadir at it: {choice.datadir}/{names[0]}"
        )
    task = tasks[0]
    targets, pool = task.targets, task.pool
    if not choice.targets and _is_fox(choice.format_name, task.scene.name):
        targets = held_out_views(task.scene.view_ids)
        pool = tuple(view for view in choice.sources or task.scene.view_ids if view not in targets)
    task = SceneTask(task.scene, targets, (), task.region, pool=pool)
    check_split(task, num_sources)
    return task


def check_valid_pixels(task: SceneTask) -> None:
    """Refuse test views without any valid pixel."""
    for view in task.targets:
        mask = task.scene.read_view(view).mask
        rows, columns = (int(side * task.region.border + 1e-6) for side in mask.shape)
        if mask[rows : mask.shape[0] - rows, columns : mask.shape[1] - columns].any():
            return
    raise UserError(
        f"Scene {task.scene.name!r}: no pixel of its test views {list(task.targets)} counts, since "
        "their masks are black. Choose other --targets, or correct the masks."
    )


def check_split(task: SceneTask, num_sources: int) -> None:
    """Refuse a split with too few training or test views."""
    scene, count = task.scene.name, len(task.pool)
    if not task.targets:
        raise UserError(
            f"Scene {scene!r} has no view to test on; choose some of its {count} with --targets."
        )
    fewest = _MIN_FINETUNING_VIEWS
    if num_sources < fewest:
        raise UserError(f"--n_views {num_sources}: fine-tuning needs at least {fewest} sources.")
    if count < fewest:
        raise UserError(
            f"Scene {scene!r}: {count} training views are left beside {len(task.targets)} test "
            f"views; {fewest} are needed. Choose fewer --targets or more --sources."
        )


def _has(scene: PosedScene, views: Sequence[int]) -> bool:
    return set(views) <= set(scene.view_ids)


def _is_fox(name: str, scene: str) -> bool:
    return name == "transforms" and scene == "fox"


def _options(name: str, scene: str, choice: DataChoice) -> ReadOptions:
    options = choice.options
    size: Size | None = None
    if name == "llff" or (name == "colmap" and scene == "fern"):
        size = _LLFF_SIZE
    if _is_fox(name, scene):
        size = _FOX_SIZE
        options = replace(options, near_far=options.near_far or _FOX_NEAR_FAR)
    if size is not None and options.size is None:
        options = replace(options, size=scaled_size(size, options.scale))
    return options
