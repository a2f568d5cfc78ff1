"""Groups of photographs with known cameras, on which a backbone is judged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from datasets.formats.colmap import read_colmap_points
from datasets.formats.options import ReadOptions
from datasets.formats.registry import choose_scenes, open_scene
from datasets.posed_scene import PosedScene
from datasets.protocols import DTU_POOL, DTU_TARGETS, FERN_TARGETS
from datasets.view_selection import rank_by_distance
from datasets.views import Views
from utils.errors import UserError

logger = logging.getLogger(__name__)

GROUPS = 4
"""Groups of a scene, unless its targets are named."""
MAX_SIDE = 1024
"""Pictures are read at no more than this: more than any network sees, and quick to match."""

Centers = Mapping[int, Float[Tensor, " 3"]]
"""Camera centres by view."""


@dataclass(frozen=True)
class RealScene:
    """A scene, and which of its views are shown together."""

    name: str
    groups: tuple[tuple[int, ...], ...]
    """Views, the target and frame of reference first."""
    load_views: Callable[[Sequence[int]], Views]
    """Reads views of a group."""
    points: Mapping[int, Float[Tensor, "_ 3"]]
    """For views that are known to have seen triangulated points: these, in the world."""


def plan_groups(
    name: str,
    centers: Centers,
    num_views: int,
    targets: Sequence[int] = (),
    pool: Sequence[int] = (),
) -> tuple[tuple[int, ...], ...]:
    """Join every target and the views nearest to it.

    Args:
        name: Of the scene, for messages.
        centers: Of all views.
        num_views: Views of a group.
        targets: One group each; a few that are spread evenly if none are named.
        pool: What the others are chosen from; all views if none are named.

    Raises:
        UserError: The scene has too few views, or not those that are named.
    """
    ordered = sorted(centers)
    absent = [view for view in (*targets, *pool) if view not in centers]
    if absent:
        raise UserError(
            f"{name}: there is no view {absent[0]}; it has {len(ordered)}, from {ordered[0]} to "
            f"{ordered[-1]}"
        )
    if len(ordered) < num_views:
        raise UserError(
            f"{name}: has {len(ordered)} views, but groups of {num_views} are wanted; lower --views"
        )
    targets = targets or _spread(ordered, GROUPS)
    nearest = {target: rank_by_distance(target, pool or ordered, centers) for target in targets}
    return tuple((target, *nearest[target][: num_views - 1]) for target in targets)


def dtu_scenes(spec: str, num_views: int) -> list[RealScene]:
    """Read scans of a folder in DTU's layout: ``DIR``, or ``DIR:scan65,scan24``.

    Raises:
        UserError: The folder or a file in it is missing or malformed, or has too few views.
    """
    root, names = split_spec(spec)
    scenes = [open_scene("dtu", scan) for scan in choose_scenes("dtu", root, ",".join(names))]
    return [_dtu_scene(scene, num_views) for scene in scenes]


def llff_scene(spec: str, num_views: int) -> RealScene:
    """Read a scene in LLFF's layout: ``DIR``, or ``DIR:12,13`` to name the targets.

    Raises:
        UserError: The folder or a file in it is missing or malformed, or has too few views.
    """
    folder, names = split_spec(spec)
    targets = _view_numbers(names, spec)
    scene = _read_at_size("llff", folder)
    if not targets and scene.name == "fern":
        targets = FERN_TARGETS
    return _posed_scene(scene, targets, num_views, _colmap_points(folder, scene))


def transforms_scene(spec: str, num_views: int) -> RealScene:
    """Read a scene with a ``transforms.json``: ``DIR``, or ``DIR:5,15`` to name the targets.

    Raises:
        UserError: The folder or a file in it is missing or malformed, or has too few views.
    """
    folder, names = split_spec(spec)
    targets = _view_numbers(names, spec)
    return _posed_scene(_read_at_size("transforms", folder), targets, num_views, {})


def split_spec(spec: str) -> tuple[Path, list[str]]:
    """Take ``DIR:a,b`` apart; a folder whose own name has a colon is taken whole."""
    folder, colon, names = spec.rpartition(":")
    if not colon or Path(spec).exists():
        return Path(spec), []
    return Path(folder), [name for name in names.split(",") if name]


def _spread(views: Sequence[int], count: int) -> list[int]:
    count = min(count, len(views))
    return [views[(2 * place + 1) * len(views) // (2 * count)] for place in range(count)]


def _dtu_scene(scene: PosedScene, num_views: int) -> RealScene:
    protocol = set(DTU_TARGETS + DTU_POOL) <= set(scene.view_ids)
    targets, pool = (DTU_TARGETS, DTU_POOL) if protocol else ((), ())
    return _posed_scene(scene, targets, num_views, {}, pool)


def _read_at_size(name: str, folder: Path) -> PosedScene:
    """Read a scene with the aspect of its pictures."""
    return open_scene(name, folder, ReadOptions(longest_side=MAX_SIDE))


def _posed_scene(
    scene: PosedScene,
    targets: Sequence[int],
    num_views: int,
    points: Mapping[int, Float[Tensor, "_ 3"]],
    pool: Sequence[int] = (),
) -> RealScene:
    centers = dict(zip(scene.view_ids, scene.cameras.centers, strict=True))
    groups = plan_groups(scene.name, centers, num_views, targets, pool)
    return RealScene(scene.name, groups, scene.load_views, points)


def _view_numbers(names: Sequence[str], spec: str) -> list[int]:
    if not all(name.isdecimal() for name in names):
        raise UserError(f"{spec}: the views after the colon must be numbers such as 5,15")
    return [int(name) for name in names]


def _colmap_points(folder: Path, scene: PosedScene) -> dict[int, Float[Tensor, "_ 3"]]:
    """Return the points of ``sparse/0``, if there are any that belong to these views."""
    model = folder / "sparse" / "0"
    if not (model / "points3D.bin").is_file():
        return {}
    points = read_colmap_points(model)
    if len(points.seen) != len(scene.view_ids):
        logger.warning(
            "%s: not used, it has %d images and the scene %d",
            *(model, len(points.seen), len(scene.view_ids)),
        )
        return {}
    # Both count in the order of the pictures' names.
    return {
        view: points.positions[seen] for view, seen in zip(scene.view_ids, points.seen, strict=True)
    }
