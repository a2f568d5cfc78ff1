"""Samples of many single scenes, whatever their format."""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, groupby

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.config import DataSource
from datasets.formats.options import Size
from datasets.formats.registry import is_listed, open_scene
from datasets.formats.splits import Split
from datasets.posed_scene import PosedScene, ReadView, ViewPixels
from datasets.protocols import Protocol, assign_roles
from datasets.scene_index import REWRITE, SceneEntry, list_entries
from datasets.views import Sample, SampleRequest
from utils.errors import UserError

_LOG = logging.getLogger(__name__)
_OPEN_SCENES = 256
"""Scenes whose cameras a process keeps."""


@dataclass(frozen=True)
class SamplingRules:
    """How samples are drawn."""

    num_nearest: int
    """Neighbours of a target that its training sources are drawn among."""
    num_targets: int
    max_sources: int


@dataclass(frozen=True)
class ItemGroup:
    """A run of items whose samples can be in one batch."""

    first: int
    count: int
    weight: float = 1.0
    """Share of the batches that come from it, relative to the other groups."""


class PixelCache:
    """Keeps what was read last. Every worker process has its own; nothing is shared."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.held_bytes = 0
        self._held: OrderedDict[Hashable, ViewPixels] = OrderedDict()

    def read(self, read_view: ReadView, scene: Hashable, view: int) -> ViewPixels:
        """Read a view of a scene, unless its pixels are kept. They are not to change."""
        key = scene, view
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        pixels = read_view(view)
        size = _bytes_of(pixels)
        if size > self._max_bytes:
            return pixels
        while self.held_bytes + size > self._max_bytes:
            self.held_bytes -= _bytes_of(self._held.popitem(last=False)[1])
        self._held[key] = pixels
        self.held_bytes += size
        return pixels


@dataclass(frozen=True)
class _PlannedScene:
    entry: SceneEntry
    roles: Protocol


class SceneDataset(Dataset[Sample]):
    """Samples of one split of a data set; one item for each scene and target view.

    For training, ``request.seed`` draws one of the lights of the photographs and the sources, among
    the nearest neighbours of the target. For validation these are the nearest of the views that may
    be sources. A scene is opened when it is needed first.
    """

    def __init__(
        self, source: DataSource, split: Split, rules: SamplingRules, cache: PixelCache
    ) -> None:
        self._source, self._rules, self._cache = source, rules, cache
        self._train = split == "train"
        listed = is_listed(source.name, source.folder) and not source.scan
        planned = [
            _PlannedScene(entry, assign_roles(source.name, entry, split, listed, rules.max_sources))
            for entry in list_entries(source, split)
        ]
        self._scenes = sorted(self._usable(planned), key=lambda scene: scene.entry.size)
        counts = [len(scene.roles.targets) for scene in self._scenes]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._open: OrderedDict[int, PosedScene] = OrderedDict()
        _LOG.info("%s: %d scenes, %d target views", source.folder, len(counts), len(self))

    @property
    def groups(self) -> list[ItemGroup]:
        """Runs of items whose images have one size."""
        groups = []
        for _, run in groupby(range(len(self._scenes)), key=lambda n: self._scenes[n].entry.size):
            scenes = list(run)
            first, end = self._starts[scenes[0]], self._starts[scenes[-1] + 1]
            groups.append(ItemGroup(int(first), int(end - first)))
        return groups

    @property
    def largest_size(self) -> Size:
        """Height and width of the largest images."""
        return max((scene.entry.size for scene in self._scenes), key=math.prod)

    def some_scenes(self, count: int, names: Collection[str]) -> Iterator[PosedScene]:
        """Open the scenes in folders of these names, or so many spread evenly without names."""
        every = -(-len(self._scenes) // count)
        for number, scene in enumerate(self._scenes):
            chosen = scene.entry.folder.name in names if names else number % every == 0
            if chosen:
                yield replace(self._opened(number), name=scene.entry.folder.name)

    def check_counted(self) -> None:
        """Refuse targets of which no pixel counts; mostly the first shows that some do."""
        for number, planned in enumerate(self._scenes):
            scene = self._opened(number)
            read = scene.training_views if self._train else scene.load_views
            if any(read([view]).masks.any() for view in planned.roles.targets):
                return
        use = "train" if self._train else "validate"
        raise UserError(
            f"{self._source.folder}: no pixel counts of the {len(self)} views to {use} on, since "
            f"masks or transparency leave none. Correct the masks, or remove them."
        )

    def __len__(self) -> int:
        """Count scenes times targets."""
        return int(self._starts[-1])

    def __getitem__(self, request: SampleRequest) -> Sample:
        """Read the sample; the same request always gives the same one."""
        number = int(np.searchsorted(self._starts, request.index, side="right")) - 1
        roles = self._scenes[number].roles
        scene = self._opened(number)
        target = roles.targets[request.index - int(self._starts[number])]
        if not self._train:
            return scene.sample(target, roles.pool, request.num_sources)
        generator = torch.Generator().manual_seed(request.seed)
        light = None
        if scene.lights:
            light = scene.lights[int(torch.randint(len(scene.lights), (), generator=generator))]
        sources, targets = self._draw_views(scene, target, roles, request.num_sources, generator)
        return Sample(
            sources=scene.training_views(sources, light),
            targets=scene.training_views(targets, light),
            near_far=scene.range_of([*targets, *sources]),
            scene=scene.name,
            source_ids=tuple(sources),
            target_ids=tuple(targets),
        )

    def _draw_views(
        self,
        scene: PosedScene,
        target: int,
        roles: Protocol,
        num_sources: int,
        generator: torch.Generator,
    ) -> tuple[list[int], list[int]]:
        """Draw sources and further targets among the neighbours of a target."""
        pool = set(roles.pool)
        ranked = [view for view in scene.ranked_neighbours(target) if view in pool]
        nearest = ranked[: self._rules.num_nearest]
        needed = num_sources + self._rules.num_targets - 1
        if needed > len(nearest):
            raise UserError(
                f"{scene.name}: view {target} has {len(nearest)} neighbours to draw from, but "
                f"{num_sources} sources and {needed - num_sources} further targets are wanted."
            )
        order = torch.randperm(len(nearest), generator=generator).tolist()
        drawn = [nearest[place] for place in order[:needed]]
        return drawn[:num_sources], [target, *drawn[num_sources:]]

    def _usable(self, planned: list[_PlannedScene]) -> list[_PlannedScene]:
        # In training the target is one of the pool.
        needed = self._rules.max_sources + (self._rules.num_targets if self._train else 0)
        usable = [scene for scene in planned if len(scene.roles.pool) >= needed]
        if not usable:
            most = max((len(scene.roles.pool) for scene in planned), default=0)
            raise UserError(
                f"{self._source.folder}: no scene has enough views: {needed} are needed beside "
                f"those that are held out, the largest has {most}. {self._fewer(most)}"
            )
        if len(usable) < len(planned):
            short = next(scene for scene in planned if len(scene.roles.pool) < needed)
            _LOG.warning(
                "%s: %d of %d scenes have fewer than %d views and are left out, %s for example",
                *(self._source.folder, len(planned) - len(usable), len(planned), needed),
                short.entry.folder.name,
            )
        return usable

    def _fewer(self, most: int) -> str:
        """Say how to get by with scenes of so many views."""
        if not self._train:
            return f"Ask for fewer sources with --num_source_views {max(most, 1)}."
        sources = most - self._rules.num_targets
        if sources < 1:
            return "Take more photos, or render these with render_video.py: it needs no training."
        least = min(sources, 2)
        return f"Ask for fewer sources with --min_sources {least} --max_sources {sources}."

    def _opened(self, number: int) -> PosedScene:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        entry = self._scenes[number].entry
        folder, views = entry.folder, entry.views
        scene = open_scene(self._source.name, folder, self._source.options)
        if (scene.view_ids, scene.image_size) != (views, entry.size):
            raise UserError(
                f"{folder}: has {len(scene.view_ids)} views of {scene.image_size}, but the index "
                f"says {len(views)} of {entry.size}. {REWRITE}"
            )
        # Two parts of a mix may read one folder at two sizes.
        key = folder, self._source.options
        self._open[number] = replace(
            scene,
            read_view=partial(self._cache.read, scene.read_view, key),
            lights=tuple(
                partial(self._cache.read, read_view, (*key, light))
                for light, read_view in enumerate(scene.lights)
            ),
        )
        while len(self._open) > _OPEN_SCENES:
            self._open.popitem(last=False)
        return self._open[number]


class MixedDataset(Dataset[Sample]):
    """Data sets one after the other. Their units of length need not agree: each has its own."""

    def __init__(self, parts: Sequence[SceneDataset], weights: Sequence[float]) -> None:
        """Join data sets; ``weights`` are their shares of the batches."""
        self.parts, self._weights = parts, weights
        self._starts = [0, *accumulate(len(part) for part in parts)]

    @property
    def groups(self) -> list[ItemGroup]:
        """Runs of items that can be in one batch; a part's weight is shared by its items."""
        return [
            ItemGroup(start + group.first, group.count, weight * group.count / len(part))
            for part, start, weight in zip(
                self.parts, self._starts[:-1], self._weights, strict=True
            )
            for group in part.groups
        ]

    @property
    def largest_size(self) -> Size:
        """Height and width of the largest images."""
        return max((part.largest_size for part in self.parts), key=math.prod)

    def __len__(self) -> int:
        """Count the items of all parts."""
        return self._starts[-1]

    def __getitem__(self, request: SampleRequest) -> Sample:
        """Read the sample from the part that has it."""
        number = bisect_right(self._starts, request.index) - 1
        return self.parts[number][request._replace(index=request.index - self._starts[number])]


def _bytes_of(pixels: ViewPixels) -> int:
    return pixels.image.nbytes + pixels.depth.nbytes + pixels.mask.nbytes
