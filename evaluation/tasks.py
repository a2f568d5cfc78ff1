"""What is rendered of a scene, and from which views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datasets.posed_scene import PosedScene
from evaluation.config import DataChoice
from evaluation.scores import Region


@dataclass(frozen=True)
class SceneTask:
    """One scene of an evaluation."""

    scene: PosedScene
    targets: tuple[int, ...]
    sources: tuple[tuple[int, ...], ...]
    """For every target its sources, nearest first."""
    region: Region
    subset: str | None = None
    """Scenes of one subset are also averaged on their own."""
    pool: tuple[int, ...] = ()
    """Views that are no targets: what sources are taken from, and what fine-tuning trains on."""


@dataclass(frozen=True)
class Protocol:
    """What a data set's tables render, unless somebody chooses otherwise."""

    targets: Sequence[int]
    pool: Sequence[int]
    """Views that sources are taken from; targets are never among them."""
    region: Region


def plan_task(
    scene: PosedScene, protocol: Protocol, choice: DataChoice, subset: str | None = None
) -> SceneTask:
    """Choose targets and their sources.

    Raises:
        UserError: There is no such view, or there are too few.
    """
    targets = choice.targets or tuple(protocol.targets)
    pool = choice.sources or tuple(view for view in protocol.pool if view not in targets)
    return SceneTask(
        scene=scene,
        targets=targets,
        sources=tuple(scene.nearest(target, pool, choice.n_views) for target in targets),
        region=protocol.region,
        subset=subset,
        pool=tuple(view for view in pool if view not in targets),
    )
