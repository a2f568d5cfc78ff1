"""Lightning data module of procedural worlds.

Workers plan the worlds and the training device renders them; each visit to a rendered batch draws
other targets and sources among its views.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.config import DataConfig
from datasets.loading import rank_and_world_size
from datasets.procedural.config import ProceduralConfig, ProceduralDataConfig, ReplayConfig
from datasets.procedural.generator import ProceduralBatch, ProceduralGenerator
from datasets.procedural.replay import (
    FIRST_TRAINING_SCENE,
    HeldOutPlan,
    PlannedData,
    SceneRequest,
    StepPlans,
)
from datasets.views import Sample
from utils.devices import generator_for
from utils.errors import UserError

_SIZE_STREAM, _VIEW_STREAM = 11, 12
_DEFAULT_STEPS_PER_EPOCH = 1000


class ProceduralDataModule(PlannedData):
    """Training and validation samples from procedural worlds."""

    def __init__(
        self, data: DataConfig, worlds: ProceduralDataConfig, replay: ReplayConfig, seed: int = 0
    ) -> None:
        needed = max(data.max_sources + data.num_targets, data.num_source_views + 1)
        if worlds.world_views < needed:
            raise UserError(
                f"world_views={worlds.world_views}: a sample needs {needed} views of a world "
                "(max_sources and num_targets, or num_source_views and a target)"
            )
        config = ProceduralConfig(
            seed=worlds.world_seed,
            samples=worlds.world_rays,
            texture_folder=worlds.world_photos,
            rays_per_chunk=worlds.rays_per_chunk,
        )
        self._data, self._worlds = data, worlds
        steps_per_epoch = data.batches_per_epoch or _DEFAULT_STEPS_PER_EPOCH
        generator = ProceduralGenerator(config)
        super().__init__(generator, replay, seed, steps_per_epoch, data.num_workers)

    def request(self, batch: int) -> SceneRequest:
        """Return worlds that no other batch and no other rank uses."""
        data, worlds = self._data, self._worlds
        rank, world_size = rank_and_world_size(self)
        first = FIRST_TRAINING_SCENE + (batch * world_size + rank) * data.scenes_per_batch
        generator = generator_for("cpu", self._seed, _SIZE_STREAM, batch, 1)
        size = worlds.sizes[int(torch.randint(len(worlds.sizes), (), generator=generator))]
        difficulty = worlds.difficulty_at(batch * self._replay.visits)
        ids = range(first, first + data.scenes_per_batch)
        return SceneRequest(ids, worlds.world_views, size, difficulty)

    def held_out_requests(self) -> list[SceneRequest]:
        """Return this rank's share of the held-out worlds, equally many on all ranks."""
        worlds, (rank, world_size) = self._worlds, rank_and_world_size(self)
        count = -(-worlds.val_worlds // world_size)
        size, views = worlds.sizes[0], self._data.num_source_views + 1
        ids = [(rank + index * world_size) % worlds.val_worlds for index in range(count)]
        return [SceneRequest([number], views, size, worlds.val_difficulty) for number in ids]

    def on_after_batch_transfer(
        self, batch: StepPlans | HeldOutPlan, dataloader_idx: int
    ) -> Sample:
        """Render, and draw targets and sources."""
        rendered: ProceduralBatch = super().on_after_batch_transfer(batch, dataloader_idx)
        if isinstance(batch, HeldOutPlan):
            return held_out_sample(rendered, batch.scene_ids)
        data, rank = self._data, rank_and_world_size(self)[0]
        # All ranks draw the same number of sources, but each its own views.
        shared = generator_for("cpu", self._seed, _SIZE_STREAM, batch.step)
        span = data.max_sources - data.min_sources + 1
        num_sources = data.min_sources + int(torch.randint(span, (), generator=shared))
        device = rendered.near_far.device
        generator = generator_for(device, self._seed, _VIEW_STREAM, batch.step, rank)
        targets, sources = draw_views(
            rendered.views.cameras.centers,
            (data.num_targets, num_sources),
            self._worlds.source_noise,
            generator,
        )
        return _select_sample(rendered, targets, sources)


def draw_views(
    centers: Float[Tensor, "scene view 3"],
    counts: tuple[int, int],
    noise: float,
    generator: torch.Generator,
) -> tuple[Int[Tensor, "scene target"], Int[Tensor, "scene source"]]:
    """Draw targets at random, and for each scene sources near its first target.

    ``counts`` holds the numbers of targets and sources; ``noise`` is the standard deviation of the
    log of the factors on distances.
    """
    shape, device = centers.shape[:2], centers.device
    order = torch.rand(shape, generator=generator, device=device).argsort(1)
    targets = order[:, : counts[0]]
    first = centers.gather(1, targets[:, :1, None].expand(-1, -1, 3))
    distances = (centers - first).norm(dim=-1)
    factors = (noise * torch.randn(shape, generator=generator, device=device)).exp()
    distances = (distances * factors).scatter(1, targets, torch.inf)
    return targets, distances.argsort(1)[:, : counts[1]]


def held_out_sample(rendered: ProceduralBatch, scene_ids: Sequence[int]) -> Sample:
    """Make the first view the target and the others its sources, nearest first."""
    centers = rendered.views.cameras.centers
    distances = (centers - centers[:, :1]).norm(dim=-1)
    order = distances.argsort(1)
    names = tuple(f"world{number}" for number in scene_ids)
    return _select_sample(rendered, order[:, :1], order[:, 1:], names, ((0,),) * len(names))


def _select_sample(
    rendered: ProceduralBatch,
    targets: Int[Tensor, "scene target"],
    sources: Int[Tensor, "scene source"],
    names: tuple[str, ...] = (),
    target_ids: tuple[tuple[int, ...], ...] = (),
) -> Sample:
    """Select views of rendered scenes, without copying the indices to the host."""
    rows = torch.arange(len(targets), device=targets.device)[:, None]
    return Sample(
        sources=rendered.views[rows, sources],
        targets=rendered.views[rows, targets],
        near_far=rendered.near_far,
        scene=names,
        source_ids=(),
        target_ids=target_ids,
        cameras_are_exact=True,
    )
