"""Which views of a scene are rendered from which: for training, tests and fine-tuning.

DTU, and LLFF's fern, as MVSNeRF measures them (Chen et al., ICCV 2021), whichever reader they come
through; NeRF's synthetic scenes at four views spread over their test images, from their training
images; other scenes by NeRF's split, the first of every eight views (Mildenhall et al., ECCV 2020).
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
from datasets.photo_folder import spread_evenly
from datasets.posed_scene import PosedScene
from datasets.scene_index import SceneEntry
from datasets.views import Views
from utils.errors import UserError

DTU_TARGETS = (32, 24, 23, 44)
"""Views of every DTU scan that are rendered in MVSNeRF's protocol."""
DTU_POOL = (25, 21, 33, 22, 14, 15, 26, 30, 31, 35, 34, 43, 46, 29, 16, 36)
"""Views from which that protocol takes the sources: the nearest to the target."""
FERN_TARGETS = (12, 13, 5, 19)
FERN_POOL = (17, 2, 7, 6, 11, 1, 8, 18, 3, 16, 4, 14, 9, 10, 0, 15)
FOX_TARGETS = (5, 15, 25, 35)
"""How this project measures instant-ngp's fox, for which the field has no protocol."""
_FOX_SIZE, _FOX_NEAR_FAR = (640, 360), (1.2, 9.0)
_LLFF_SIZE = (640, 960)
_BLENDER_TARGETS = 4
_HOLD_OUT_EVERY = 8
_LOG = logging.getLogger(__name__)

MIN_TRAINING_VIEWS = MIN_SOURCES = 2
"""Of fine-tuning."""


@dataclass(frozen=True)
class Region:
    """Which pixels of a data set's images count."""

    border: float = 0.0
    """Share of width and height that is cut away at every side."""
    known_depth_only: bool = False
    """Where a view has true depth, pixels without it do not count."""
    depth_is_complete: bool = False
    """Where there is no true depth, there is no surface."""


_FORWARD_FACING, _WHOLE = Region(border=0.1), Region()
_REGIONS = {"dtu": Region(known_depth_only=True), "blender": _WHOLE, "blendedmvs": _WHOLE}
"""Of the formats whose images count up to the border, as those of others do not."""


@dataclass(frozen=True)
class Protocol:
    """Which views of a scene are rendered, from which, and which pixels count."""

    targets: tuple[int, ...]
    pool: tuple[int, ...]
    """Views that sources are taken from."""
    region: Region = Region()


@dataclass(frozen=True)
class SceneTask:
    """One scene of an evaluation, or to be fine-tuned."""

    scene: PosedScene
    targets: tuple[int, ...]
    sources: tuple[tuple[int, ...], ...]
    """For every target its sources, nearest first; none before a fine-tuning chose them."""
    region: Region
    subset: str | None = None
    """Scenes of one subset are also averaged on their own."""
    pool: tuple[int, ...] = ()
    """Views that are no targets, which fine-tuning trains on."""

    def training_views(self) -> Views:
        """Read the pool, without what depth it has."""
        views = self.scene.training_views(self.pool)
        return replace(views, depths=torch.zeros_like(views.depths))


def held_out_views(views: Sequence[int], every: int = _HOLD_OUT_EVERY) -> tuple[int, ...]:
    """Return the views to test on where nothing else is agreed: the first of every eight."""
    return tuple(views[::every])


def choose_held_out(views: Sequence[int], num_sources: int) -> Protocol:
    """Choose targets and pool of a scan of DTU.

    MVSNeRF's where all its targets and enough of its pool are there; otherwise the fifth of every
    eight views is a target (of fewer than five views the middle one), the rest the pool.
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
    """Decide which views of a scene general training renders and which may be sources.

    A scene's own splits count. Else the views of the tests are kept from training, and validated
    on; but where the data set lists scenes by split (``listed``), a training scene gives all views.
    """
    splits = scene.splits
    if train := splits.get("train"):
        held = splits.get(split) or splits.get("val") or splits.get("test") or train[::8]
        return Protocol(train, train) if split == "train" else Protocol(held, train)
    return _plain_roles(name, scene.views, split == "train", listed, num_sources)


@lru_cache
def _plain_roles(
    name: str, views: tuple[int, ...], train: bool, listed: bool, num_sources: int
) -> Protocol:
    if train and listed:
        return Protocol(views, views)
    held = held_out_views(views)
    roles = Protocol(held, tuple(sorted(set(views).difference(held))))
    if name == "dtu":
        roles = choose_held_out(views, num_sources)
    return Protocol(roles.pool, roles.pool) if train else roles


def plan_task(
    scene: PosedScene, protocol: Protocol, choice: DataChoice, subset: str | None = None
) -> SceneTask:
    """Choose targets and their sources."""
    targets = choice.targets or protocol.targets
    _check_sources(scene, choice.sources)
    pool = choice.sources or tuple(view for view in protocol.pool if view not in targets)
    # Of fewer views than wanted all are read.
    fewest = min((len(set(pool) - {target}) for target in targets), default=0)
    if not fewest:
        raise UserError(
            f"Scene {scene.name!r}: of {len(scene.view_ids)} views none is left to render a test "
            "view from; choose fewer --targets, or more --sources."
        )
    count = min(choice.n_views, fewest)
    if count < choice.n_views:
        _LOG.warning("%s: --n_views is %d here, all that there are", scene.name, count)
    return SceneTask(
        scene=scene,
        targets=targets,
        sources=tuple(scene.nearest(target, pool, count) for target in targets),
        region=protocol.region,
        subset=subset,
        pool=tuple(view for view in pool if view not in targets),
    )


def _check_sources(scene: PosedScene, sources: Sequence[int]) -> None:
    tested = declared_test_views(scene)
    if named := [str(view) for view in sources if view in tested]:
        free = [str(view) for view in scene.view_ids if view not in tested]
        raise UserError(
            f"Scene {scene.name!r}: --sources names {', '.join(named)}, which its files set apart "
            f"for tests; take others, such as --sources {' '.join(free[:3])}."
        )


def scene_tasks(choice: DataChoice) -> list[SceneTask]:
    """Return the chosen scenes of a data set on disk, or its test scenes, with what is rendered."""
    name, tasks = choice.format_name, []
    for folder in choice.scene_folders("test"):
        scene = open_scene(name, folder, _options(name, folder.resolve().name, choice))
        tasks.append(plan_task(scene, protocol_of(name, scene, choice.n_views), choice))
    return tasks


def protocol_of(name: str, scene: PosedScene, num_sources: int) -> Protocol:
    """Return the protocol of a scene, by its format and its name."""
    region = _REGIONS.get(name, _FORWARD_FACING)
    if name == "dtu":
        return replace(choose_held_out(scene.view_ids, num_sources), region=region)
    if name in ("llff", "colmap") and scene.name == "fern" and _has(scene, FERN_TARGETS):
        return Protocol(FERN_TARGETS, FERN_POOL, region)
    if _is_fox(name, scene.name) and _has(scene, FOX_TARGETS):
        return Protocol(FOX_TARGETS, scene.view_ids, region)
    if tested := declared_test_views(scene):
        few = tuple(spread_evenly(tested, _BLENDER_TARGETS)) if name == "blender" else tested
        return Protocol(few, scene.splits["train"], region)
    return Protocol(held_out_views(scene.view_ids), scene.view_ids, region)


def declared_test_views(scene: PosedScene) -> tuple[int, ...]:
    """Return the views that the files set apart for tests, those for validation if there are none.

    They are never sources of what is measured, nor trained on.
    """
    return scene.splits.get("test") or scene.splits.get("val") or ()


def read_split(choice: DataChoice, num_sources: int) -> SceneTask:
    """Find the one scene to fine-tune on and divide its views, for renderings of so many sources.

    The test views are those of the protocol (for the fox every eighth), unless the choice has some.
    """
    # Sources are counted for one target at a time; all that matters here is that there are some.
    reading = replace(choice, n_views=1)
    if choice.dataset_name == "procedural":
        from datasets.procedural_data import world_tasks

        held_out = HeldOutScenes(num_worlds=1, world_views=20)
        tasks = list(islice(world_tasks(held_out, reading), 1))
    else:
        tasks = scene_tasks(reading)
    if len(tasks) > 1:
        names = [task.scene.name for task in tasks]
        raise UserError(
            f"{choice.datadir}: holds {len(names)} scenes ({', '.join(names[:4])}, ...), but one "
            f"is fine-tuned at a time; point --datadir at it: {choice.datadir}/{names[0]}"
        )
    task = tasks[0]
    targets, pool = task.targets, task.pool
    if not choice.targets and _is_fox(choice.format_name, task.scene.name):
        targets = held_out_views(task.scene.view_ids)
        pool = tuple(view for view in choice.sources or task.scene.view_ids if view not in targets)
    task = SceneTask(task.scene, targets, (), task.region, pool=pool)
    check_split(task, num_sources)
    return task


def check_counted(task: SceneTask) -> None:
    """Refuse test views of which no pixel would count."""
    for view in task.targets:
        mask = task.scene.read_view(view).mask
        rows, columns = (int(side * task.region.border + 1e-6) for side in mask.shape)
        if mask[rows : mask.shape[0] - rows, columns : mask.shape[1] - columns].any():
            return
    raise UserError(
        f"Scene {task.scene.name!r}: no pixel of its test views {list(task.targets)} counts, since "
        "their masks are black there. Choose other --targets, or correct the masks."
    )


def check_split(task: SceneTask, num_sources: int) -> None:
    """Refuse a division with too few views to train or to test on."""
    scene, count = task.scene.name, len(task.pool)
    if not task.targets:
        raise UserError(
            f"Scene {scene!r} has no view to test on; choose some of its {count} with --targets."
        )
    if num_sources < MIN_SOURCES:
        raise UserError(
            f"--n_views {num_sources}: fine-tuning renders from at least {MIN_SOURCES} views."
        )
    if count < MIN_TRAINING_VIEWS:
        raise UserError(
            f"Scene {scene!r}: {count} training views are left beside {len(task.targets)} test "
            f"views; {MIN_TRAINING_VIEWS} are needed. Choose fewer --targets or more --sources."
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
