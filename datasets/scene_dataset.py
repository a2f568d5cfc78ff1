"""Samples of the scenes of a data set, whatever their format."""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, groupby

import torch
from torch.utils.data import Dataset

from datasets.data_source import DataSource
from datasets.formats.options import Size
from datasets.formats.registry import is_listed, open_scene
from datasets.formats.splits import Split
from datasets.posed_scene import PosedScene, ReadView, ViewPixels
from datasets.protocols import Protocol, assign_roles
from datasets.sampling import ItemGroup
from datasets.scene_index import REWRITE, SceneEntry, list_entries
from datasets.views import Sample, SampleRequest
from utils.errors import UserError

_LOG = logging.getLogger(__name__)
_MAX_OPEN_SCENES = 256
"""Scenes whose cameras a process keeps in memory."""


@dataclass(frozen=True)
class SamplingRules:
    """How samples are drawn."""

    num_nearest: int
    """Nearest neighbours of a target among which its training sources are drawn."""
    num_targets: int
    max_sources: int


class PixelCache:
    """Least-recently-used cache of decoded views. Every worker process has its own."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.held_bytes = 0
        self._held: OrderedDict[Hashable, ViewPixels] = OrderedDict()

    def read(self, read_view: ReadView, scene: Hashable, view: int) -> ViewPixels:
        """Read a view of a scene through the cache. The result must not be modified."""
        key = scene, view
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        pixels = read_view(view)
        size = _num_bytes(pixels)
        if size > self._max_bytes:
            return pixels
        while self.held_bytes + size > self._max_bytes:
            self.held_bytes -= _num_bytes(self._held.popitem(last=False)[1])
        self._held[key] = pixels
        self.held_bytes += size
        return pixels


@dataclass(frozen=True)
class _PlannedScene:
    entry: SceneEntry
    roles: Protocol


class SceneDataset(Dataset[Sample]):
    """Samples of one split of a data set: one item for each scene and target view.

    In training, ``request.seed`` draws a light condition, and the sources among the nearest
    neighbours of the target. In validation, the sources are the nearest views of the pool. A scene
    is opened when it is first needed.
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
        self._starts = [0, *accumulate(counts)]
        self._open: OrderedDict[int, PosedScene] = OrderedDict()
        _LOG.info("%s: %d scenes, %d target views", source.folder, len(counts), len(self))

    @property
    def groups(self) -> list[ItemGroup]:
        """Items grouped by image size."""
        groups = []
        for _, run in groupby(range(len(self._scenes)), key=lambda n: self._scenes[n].entry.size):
            scenes = list(run)
            first, end = self._starts[scenes[0]], self._starts[scenes[-1] + 1]
            groups.append(ItemGroup(first, end - first))
        return groups

    @property
    def largest_size(self) -> Size:
        """Height and width of the largest images."""
        return max((scene.entry.size for scene in self._scenes), key=math.prod)

    def selected_scenes(self, count: int, names: Collection[str]) -> Iterator[PosedScene]:
        """Open the scenes whose folders have these names, or without names ``count`` spread ones.

        Each scene carries the name of its folder.
        """
        stride = -(-len(self._scenes) // count)
        for number, scene in enumerate(self._scenes):
            folder = scene.entry.folder.name
            if folder in names if names else number % stride == 0:
                yield replace(self._opened(number), name=folder)

    def check_valid_pixels(self) -> None:
        """Refuse data whose target views have no valid pixel; usually the first view has some."""
        for number, planned in enumerate(self._scenes):
            scene = self._opened(number)
            read = scene.training_views if self._train else scene.load_views
            if any(read([view]).masks.any() for view in planned.roles.targets):
                return
        use = "train" if self._train else "validate"
        raise UserError(
            f"{self._source.folder}: no pixel counts of the {len(self)} views to {use} on, since "
            f"masks or transparency exclude all. Correct the masks, or remove them."
        )

    def __len__(self) -> int:
        """Count the pairs of scene and target."""
        return self._starts[-1]

    def __getitem__(self, request: SampleRequest) -> Sample:
        """Read a sample, which is a function of the request."""
        number = bisect_right(self._starts, request.index) - 1
        roles = self._scenes[number].roles
        scene = self._opened(number)
        target = roles.targets[request.index - self._starts[number]]
        if not self._train:
            return scene.sample(target, roles.pool, request.num_sources)
        generator = torch.Generator().manual_seed(request.seed)
        light = None
        if scene.lights:
            light = scene.lights[int(torch.randint(len(scene.lights), (), generator=generator))]
        sources, targets = self._draw_views(
            scene, target, roles.pool, request.num_sources, generator
        )
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
        pool: Sequence[int],
        num_sources: int,
        generator: torch.Generator,
    ) -> tuple[list[int], list[int]]:
        """Draw sources and further targets among the neighbours of a target."""
        allowed = set(pool)
        ranked = [view for view in scene.ranked_neighbours(target) if view in allowed]
        nearest = ranked[: self._rules.num_nearest]
        needed = num_sources + self._rules.num_targets - 1
        if needed > len(nearest):
            raise UserError(
                f"{scene.name}: view {target} has {len(nearest)} neighbours to draw from, but "
                f"{num_sources} sources and {needed - num_sources} further targets are needed."
            )
        order = torch.randperm(len(nearest), generator=generator).tolist()
        drawn = [nearest[index] for index in order[:needed]]
        return drawn[:num_sources], [target, *drawn[num_sources:]]

    def _usable(self, planned: list[_PlannedScene]) -> list[_PlannedScene]:
        # In training, the pool includes the target.
        needed = self._rules.max_sources + (self._rules.num_targets if self._train else 0)
        usable = [scene for scene in planned if len(scene.roles.pool) >= needed]
        if not usable:
            most = max((len(scene.roles.pool) for scene in planned), default=0)
            raise UserError(
                f"{self._source.folder}: no scene has enough views: {needed} are needed beside "
                f"the held-out ones, the largest has {most}. {self._remedy(most)}"
            )
        if len(usable) < len(planned):
            short = next(scene for scene in planned if len(scene.roles.pool) < needed)
            _LOG.warning(
                "%s: %d of %d scenes have fewer than %d views and are left out, %s for example",
                *(self._source.folder, len(planned) - len(usable), len(planned), needed),
                short.entry.folder.name,
            )
        return usable

    def _remedy(self, num_views: int) -> str:
        """Say what to do with scenes of at most ``num_views`` views."""
        if not self._train:
            return f"Ask for fewer sources with --num_source_views {max(num_views, 1)}."
        sources = num_views - self._rules.num_targets
        if sources < 1:
            return "Take more photos, or use render_video.py, which needs no training."
        fewest = min(sources, 2)
        return f"Ask for fewer sources with --min_sources {fewest} --max_sources {sources}."

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
        while len(self._open) > _MAX_OPEN_SCENES:
            self._open.popitem(last=False)
        return self._open[number]


class MixedDataset(Dataset[Sample]):
    """Concatenated data sets. Each may have its own unit of length."""

    def __init__(self, parts: Sequence[SceneDataset], weights: Sequence[float]) -> None:
        """Concatenate data sets; ``weights`` are their relative shares of the batches."""
        self.parts, self._weights = parts, weights
        self._starts = [0, *accumulate(len(part) for part in parts)]

    @property
    def groups(self) -> list[ItemGroup]:
        """Items that can share a batch; the items of a part share its weight."""
        offsets = zip(self.parts, self._starts[:-1], self._weights, strict=True)
        return [
            ItemGroup(start + group.first, group.count, weight * group.count / len(part))
            for part, start, weight in offsets
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
        """Read a sample of the part that contains the index."""
        number = bisect_right(self._starts, request.index) - 1
        return self.parts[number][request._replace(index=request.index - self._starts[number])]


def _num_bytes(pixels: ViewPixels) -> int:
    return pixels.image.nbytes + pixels.depth.nbytes + pixels.mask.nbytes
