"""Which procedural scenes a training step sees: few near views first, many wide ones later.

This is a function of the step alone, so that resumed runs go on exactly and devices agree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.generator import ProceduralGenerator
from datasets.replay import (
    FIRST_TRAINING_SCENE,
    PlannedData,
    SceneRequest,
    StepSampler,
    place_among_ranks,
    scene_loader,
)
from datasets.replay import (
    plan_step as plan_batches,
)
from datasets.views import Views
from training.vggt.config import (
    MIN_VIEWS,
    CurriculumConfig,
    HeldOutConfig,
    MiniTrainingConfig,
    SceneConfig,
)
from utils.devices import generator_for

END_DIFFICULTY = 1.0
VAL_DIFFICULTY = 0.5
VAL_BATCH = 16
"""Held-out scenes in one go."""


@dataclass(frozen=True)
class SceneSource:
    """A supply of scenes in two stages."""

    prepare: Callable[[SceneRequest], Any]
    """Plans scenes on the CPU; what it returns travels from a worker process to the trainer."""
    make_renderer: Callable[[torch.device], Callable[[Any], Views]]
    """Returns, for a device, what turns a plan into views with batch axes (scene, view)."""

    def sample(self, request: SceneRequest, device: torch.device) -> Views:
        """Plan and render."""
        return self.make_renderer(device)(self.prepare(request))


def procedural_source(config: SceneConfig) -> SceneSource:
    """Return the endless supply of procedural scenes."""
    settings = ProceduralConfig(**asdict(config))
    planner = ProceduralGenerator(settings, "cpu")

    def make_renderer(device: torch.device) -> Callable[[Any], Views]:
        generator = ProceduralGenerator(settings, device)
        return lambda prepared: generator.render(prepared).views

    return SceneSource(lambda request: planner.prepare(*request), make_renderer)


@dataclass(frozen=True)
class StepPlan:
    """What one step trains on, on every device."""

    num_scenes: int
    num_views: int
    size: tuple[int, int]
    """Height and width in pixels."""
    difficulty: float
    max_scenes: int
    """Most scenes that any step of the run can have."""

    def request(self, batch: int, rank: int, world_size: int) -> SceneRequest:
        """Return a request for scenes that no other batch and no other device sees."""
        first = FIRST_TRAINING_SCENE + (batch * world_size + rank) * self.max_scenes
        ids = range(first, first + self.num_scenes)
        return SceneRequest(ids, self.num_views, self.size, self.difficulty)


def plan_step(config: CurriculumConfig, step: int, patch: int, seed: int) -> StepPlan:
    """Return the plan of a step."""
    stage = min(step * config.ramp_stages // max(config.ramp_steps, 1), config.ramp_stages)
    progress = stage / config.ramp_stages
    generator = generator_for("cpu", seed, step)
    most_views = round(
        config.start_max_views + progress * (config.max_views - config.start_max_views)
    )
    num_views = _draw(MIN_VIEWS, most_views, generator)
    patches = config.start_patches * (config.end_patches / config.start_patches) ** progress
    aspect = config.aspects[_draw(0, len(config.aspects) - 1, generator)]
    if config.patch_spread > 1:
        patches *= config.patch_spread ** (2 * float(torch.rand((), generator=generator)) - 1)
    rows = max(1, round((patches / aspect) ** 0.5))
    columns = max(1, round(patches / rows))
    fewest = MIN_VIEWS * min(config.start_patches, config.end_patches) / config.patch_spread
    easiest = config.start_difficulty
    return StepPlan(
        num_scenes=max(1, config.patches_per_step // (num_views * rows * columns)),
        num_views=num_views,
        size=(rows * patch, columns * patch),
        difficulty=easiest + progress * (END_DIFFICULTY - easiest),
        max_scenes=int(2 * config.patches_per_step / fewest),
    )


def held_out_requests(
    config: HeldOutConfig, rank: int = 0, world_size: int = 1
) -> list[SceneRequest]:
    """Return the held-out scenes of one device, in batches."""
    mine = range(config.val_scenes)[rank::world_size]
    batches = [mine[i : i + VAL_BATCH] for i in range(0, len(mine), VAL_BATCH)]
    size = (config.val_height, config.val_width)
    return [SceneRequest(ids, config.val_views, size, VAL_DIFFICULTY) for ids in batches]


class MiniData(PlannedData):
    """Plans of training and held-out scenes for this process; an epoch ends with a validation."""

    def __init__(
        self,
        config: MiniTrainingConfig,
        prepare: Callable[[SceneRequest], Any],
        held_batches: Callable[[], Collection[int]],
    ) -> None:
        """Wire the data; ``held_batches`` returns which batches the trainer has rendered."""
        super().__init__()
        self._config, self._prepare, self._held_batches = config, prepare, held_batches
        self._replay = config.replay

    def train_dataloader(self) -> DataLoader:
        """Return the run's next steps."""
        assert self.trainer is not None
        trainer, run = self.trainer, self._config.run
        steps = StepSampler(
            lambda: trainer.global_step,
            run.val_every,
            self._replay.missing_batches,
            self._held_batches,
        )
        return scene_loader(partial(plan_batches, self._plan), steps, run.num_workers)

    def val_dataloader(self) -> DataLoader:
        """Return this rank's share of the held-out scenes."""
        assert self.trainer is not None
        requests = held_out_requests(
            self._config.held_out, self.trainer.global_rank, self.trainer.world_size
        )
        return scene_loader(self._prepare, requests, min(1, self._config.run.num_workers))

    def _plan(self, batch: int) -> Any:  # noqa: ANN401
        config = self._config
        patch, seed = config.network.patch_size, config.run.training_seed
        plan = plan_step(config.curriculum, batch * config.replay.visits, patch, seed)
        return self._prepare(plan.request(batch, *place_among_ranks(self)))


def _draw(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))
