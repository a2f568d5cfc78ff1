"""Samples of many single scenes, whatever their format."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.formats.registry import open_scene
from datasets.pixel_cache import CachedReader, PixelCache
from datasets.posed_scene import PosedScene
from datasets.sampling_rules import ItemGroup, SamplingRules
from datasets.scene_index import Roles, SceneEntry, assign_roles, is_listed, list_entries
from datasets.sources import DataSource
from datasets.view_selection import Split
from datasets.views import Sample, SampleRequest
from utils.errors import UserError

_LOG = logging.getLogger(__name__)
_OPEN_SCENES = 256
"""Scenes whose cameras a process keeps."""


@dataclass(frozen=True)
class _PlannedScene:
    entry: SceneEntry
    roles: Roles


class SceneDataset(Dataset[Sample]):
    """Samples of one split of a folder of scenes; one item for each scene and target view.

    For training the sources are drawn by ``request.seed`` among the neighbours of the target: by
    pair list or common points where the scene has them, else by camera pose. For validation they
    are the nearest of the views that may be sources. A scene is opened when it is needed first.
    """

    def __init__(
        self, source: DataSource, split: Split, rules: SamplingRules, cache: PixelCache
    ) -> None:
        """Plan the items.

        Raises:
            UserError: The folder or a file in it is missing or malformed, or no scene has views
                enough.
        """
        self._source, self._rules, self._cache = source, rules, cache
        self._train = split == "train"
        entries = list_entries(source.scene_format, source.folder, split, source.options)
        listed = is_listed(source.folder)
        planned = [
            _PlannedScene(entry, assign_roles(entry.views, entry.splits, split, listed))
            for entry in entries
        ]
        self._scenes = sorted(self._usable(planned), key=lambda scene: self._size_of(scene.entry))
        counts = [len(scene.roles.targets) for scene in self._scenes]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._open: OrderedDict[int, PosedScene] = OrderedDict()
        _LOG.info("%s: %d scenes, %d target views", source.folder, len(counts), len(self))

    @property
    def groups(self) -> list[ItemGroup]:
        """Runs of items whose images have one size."""
        groups = []
        numbers = range(len(self._scenes))
        for _, run in groupby(numbers, key=lambda n: self._size_of(self._scenes[n].entry)):
            scenes = list(run)
            first, end = self._starts[scenes[0]], self._starts[scenes[-1] + 1]
            groups.append(ItemGroup(int(first), int(end - first)))
        return groups

    def __len__(self) -> int:
        """Count scenes times targets."""
        return int(self._starts[-1])

    def __getitem__(self, request: SampleRequest) -> Sample:
        """Read the sample; the same request always gives the same one.

        Raises:
            UserError: A file of it is missing or damaged.
        """
        number = int(np.searchsorted(self._starts, request.index, side="right")) - 1
        roles = self._scenes[number].roles
        scene = self._opened(number)
        target = roles.targets[request.index - int(self._starts[number])]
        if not self._train:
            return scene.sample(target, roles.pool, request.num_sources)
        sources, targets = self._draw(scene, target, roles, request)
        return Sample(
            sources=scene.load_views(sources),
            targets=scene.load_views(targets),
            near_far=scene.range_of([*targets, *sources]),
            scene=scene.name,
            source_ids=tuple(sources),
            target_ids=tuple(targets),
        )

    def _draw(
        self, scene: PosedScene, target: int, roles: Roles, request: SampleRequest
    ) -> tuple[list[int], list[int]]:
        pool = set(roles.pool)
        ranked = [view for view in scene.ranked_neighbours(target) if view in pool]
        nearest = ranked[: self._rules.num_nearest]
        generator = torch.Generator().manual_seed(request.seed)
        order = torch.randperm(len(nearest), generator=generator).tolist()
        drawn = [nearest[place] for place in order]
        others = request.num_sources + self._rules.num_targets - 1
        return drawn[: request.num_sources], [target, *drawn[request.num_sources : others]]

    def _usable(self, planned: list[_PlannedScene]) -> list[_PlannedScene]:
        needed = self._rules.max_sources
        if self._train:
            # The target is one of the pool.
            needed += self._rules.num_targets
        usable = [scene for scene in planned if len(scene.roles.pool) >= needed]
        if not usable:
            most = max((len(scene.roles.pool) for scene in planned), default=0)
            raise UserError(
                f"{self._source.folder}: no scene has enough views: {needed} are needed beside "
                f"those that are held out, the largest has {most}. Ask for fewer sources."
            )
        if len(usable) < len(planned):
            short = next(scene for scene in planned if len(scene.roles.pool) < needed)
            _LOG.warning(
                "%s: %d of %d scenes have fewer than %d views and are left out, %s for example",
                *(self._source.folder, len(planned) - len(usable), len(planned), needed),
                short.entry.folder.name,
            )
        return usable

    def _size_of(self, entry: SceneEntry) -> tuple[int, int]:
        return self._source.options.size or entry.size

    def _opened(self, number: int) -> PosedScene:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        entry = self._scenes[number].entry
        scene = open_scene(self._source.scene_format, entry.folder, self._source.options)
        expected = entry.views, self._size_of(entry)
        if (len(scene.view_ids), scene.image_size) != expected:
            raise UserError(
                f"{entry.folder}: has {len(scene.view_ids)} views of {scene.image_size}, but the "
                f"index says {expected[0]} of {expected[1]}. Write it again with "
                "python -m apps.inspect_data --write_index."
            )
        reader = CachedReader(str(entry.folder), scene.read_view, self._cache)
        self._open[number] = replace(scene, read_view=reader)
        while len(self._open) > _OPEN_SCENES:
            self._open.popitem(last=False)
        return self._open[number]
