"""Procedural worlds as data: of a general training run, for Lightning, and for evaluation.

In training, workers plan and the training device renders; every visit to a rendered batch draws
other targets and sources from its views.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.config import DataChoice, DataConfig, HeldOutScenes
from datasets.posed_scene import PosedScene, ViewPixels
from datasets.procedural.config import ProceduralConfig, ProceduralDataConfig, ReplayConfig
from datasets.procedural.generator import ProceduralBatch, ProceduralGenerator
from datasets.protocols import Protocol, Region, SceneTask, plan_task
from datasets.replay import (
    FIRST_TRAINING_SCENE,
    HeldOutPlan,
    PlannedData,
    SceneRequest,
    StepPlans,
    place_among_ranks,
)
from datasets.views import Sample, Views
from utils.devices import generator_for
from utils.errors import UserError

SIZE_STREAM, VIEW_STREAM = 11, 12
TEXTURED, TEXTURELESS = "textured", "textureless"
WORLD_SIZE = (192, 256)
_REGION = Region(depth_is_complete=True)


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
        epoch = data.batches_per_epoch or 1000
        super().__init__(ProceduralGenerator(config), replay, seed, epoch, data.num_workers)

    def request(self, batch: int) -> SceneRequest:
        """Return worlds that no other batch and no other rank sees."""
        data, worlds = self._data, self._worlds
        rank, world_size = place_among_ranks(self)
        first = FIRST_TRAINING_SCENE + (batch * world_size + rank) * data.scenes_per_batch
        drawn = generator_for("cpu", self._seed, SIZE_STREAM, batch, 1)
        size = worlds.sizes[int(torch.randint(len(worlds.sizes), (), generator=drawn))]
        difficulty = worlds.difficulty_at(batch * self._replay.visits)
        ids = range(first, first + data.scenes_per_batch)
        return SceneRequest(ids, worlds.world_views, size, difficulty)

    def held_out_requests(self) -> list[SceneRequest]:
        """Return this rank's share of the held-out worlds, equally many on all ranks."""
        worlds, (rank, world_size) = self._worlds, place_among_ranks(self)
        count = -(-worlds.val_worlds // world_size)
        size, views = worlds.sizes[0], self._data.num_source_views + 1
        ids = [(rank + place * world_size) % worlds.val_worlds for place in range(count)]
        return [SceneRequest([number], views, size, worlds.val_difficulty) for number in ids]

    def on_after_batch_transfer(
        self, batch: StepPlans | HeldOutPlan, dataloader_idx: int
    ) -> Sample:
        """Render, and draw targets and sources."""
        rendered: ProceduralBatch = super().on_after_batch_transfer(batch, dataloader_idx)
        if isinstance(batch, HeldOutPlan):
            return held_out_sample(rendered, batch.scene_ids)
        data, rank = self._data, place_among_ranks(self)[0]
        # The number of sources must be the same on all ranks; what they are need not.
        shared = generator_for("cpu", self._seed, SIZE_STREAM, batch.step)
        span = data.max_sources - data.min_sources + 1
        num_sources = data.min_sources + int(torch.randint(span, (), generator=shared))
        device = rendered.near_far.device
        generator = generator_for(device, self._seed, VIEW_STREAM, batch.step, rank)
        targets, sources = draw_views(
            rendered.views.cameras.centers,
            (data.num_targets, num_sources),
            self._worlds.source_noise,
            generator,
        )
        return _sample(rendered, targets, sources)


def draw_views(
    centers: Float[Tensor, "scene view 3"],
    counts: tuple[int, int],
    noise: float,
    generator: torch.Generator,
) -> tuple[Int[Tensor, "scene target"], Int[Tensor, "scene source"]]:
    """Draw targets at random, and for each scene sources near its first target.

    ``counts`` are those of targets and sources; ``noise`` is that of the log of distances.
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
    return _sample(rendered, order[:, :1], order[:, 1:], names, ((0,),) * len(names))


def _sample(
    rendered: ProceduralBatch,
    targets: Int[Tensor, "scene target"],
    sources: Int[Tensor, "scene source"],
    names: tuple[str, ...] = (),
    target_ids: tuple[tuple[int, ...], ...] = (),
) -> Sample:
    """Take views of rendered scenes; which ones they are is known on the device only."""
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


def _rendered_pixels(views: Views, view: int) -> ViewPixels:
    return ViewPixels(
        image=views.images[view].permute(1, 2, 0).numpy(),
        depth=views.depths[view].numpy(),
        mask=views.masks[view].numpy(),
    )


def world_tasks(
    held_out: HeldOutScenes, choice: DataChoice, device: torch.device | str = "cpu"
) -> Iterator[SceneTask]:
    """Yield every world twice, when its turn comes: textured, then with nearly all surfaces plain.

    Shapes, cameras and lamps are the same both times, so that the subsets differ in texture alone.
    """
    size = choice.size or WORLD_SIZE
    views = tuple(range(held_out.world_views))
    protocol = Protocol(views[: held_out.world_targets], views, _REGION)
    generators = {
        subset: ProceduralGenerator(
            ProceduralConfig(seed=held_out.world_seed, textureless=share), device
        )
        for subset, share in ((TEXTURED, 0.0), (TEXTURELESS, 1.0))
    }
    for world in range(held_out.num_worlds):
        for subset, generator in generators.items():
            batch = generator.sample([world], held_out.world_views, size, held_out.world_difficulty)
            scene = posed_world(batch, f"world{world:04d}_{subset}")
            yield plan_task(scene, protocol, choice, subset)


def posed_world(batch: ProceduralBatch, name: str) -> PosedScene:
    """Turn the only scene of a rendered batch into a posed scene."""
    batched = batch.views.to("cpu")
    views = Views(batched.images[0], batched.cameras[0], batched.depths[0], batched.masks[0])
    ids = tuple(range(len(views.images)))
    return PosedScene(
        name=name,
        view_ids=ids,
        view_names=tuple(f"{view:03d}" for view in ids),
        cameras=views.cameras,
        near_far=batch.near_far[0].cpu(),
        image_size=views.size,
        read_view=partial(_rendered_pixels, views),
    )
