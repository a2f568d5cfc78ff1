"""Curriculum of procedural scenes for training the small backbone.

The scenes are a function of the step alone, so that resumed runs are exact and devices agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from datasets.loading import rank_and_world_size
from datasets.procedural.generator import ProceduralGenerator
from datasets.procedural.replay import FIRST_TRAINING_SCENE, PlannedData, SceneRequest
from training.vggt.config import MIN_VIEWS, CurriculumConfig, HeldOutConfig, MiniTrainingConfig
from utils.devices import generator_for

_END_DIFFICULTY = 1.0
_VAL_DIFFICULTY = 0.5
_VAL_BATCH = 16
"""Held-out scenes in a batch."""


@dataclass(frozen=True)
class StepPlan:
    """Number, shape and difficulty of the scenes of a step, on every device."""

    num_scenes: int
    num_views: int
    size: tuple[int, int]
    """Height and width in pixels."""
    difficulty: float
    max_scenes: int
    """Upper bound of ``num_scenes`` over all steps of the run."""

    def request(self, batch: int, rank: int, world_size: int) -> SceneRequest:
        """Return a request for scenes that are unique to this batch and device."""
        first = FIRST_TRAINING_SCENE + (batch * world_size + rank) * self.max_scenes
        ids = range(first, first + self.num_scenes)
        return SceneRequest(ids, self.num_views, self.size, self.difficulty)


def plan_step(config: CurriculumConfig, step: int, patch: int, seed: int) -> StepPlan:
    """Return the plan of a step: few small views at first, many large ones later."""
    stage = min(step * config.ramp_stages // max(config.ramp_steps, 1), config.ramp_stages)
    progress = stage / config.ramp_stages
    generator = generator_for("cpu", seed, step)
    added_views = progress * (config.max_views - config.start_max_views)
    num_views = _draw(MIN_VIEWS, round(config.start_max_views + added_views), generator)
    patches = config.start_patches * (config.end_patches / config.start_patches) ** progress
    aspect = config.aspects[_draw(0, len(config.aspects) - 1, generator)]
    if config.patch_spread > 1:
        patches *= config.patch_spread ** (2 * float(torch.rand((), generator=generator)) - 1)
    rows = max(1, round((patches / aspect) ** 0.5))
    columns = max(1, round(patches / rows))
    fewest = MIN_VIEWS * min(config.start_patches, config.end_patches) / config.patch_spread
    start = config.start_difficulty
    return StepPlan(
        num_scenes=max(1, config.patches_per_step // (num_views * rows * columns)),
        num_views=num_views,
        size=(rows * patch, columns * patch),
        difficulty=start + progress * (_END_DIFFICULTY - start),
        max_scenes=int(2 * config.patches_per_step / fewest),
    )


def held_out_requests(
    config: HeldOutConfig, rank: int = 0, world_size: int = 1
) -> list[SceneRequest]:
    """Return the batches of held-out scenes of one device."""
    numbers = range(config.val_scenes)[rank::world_size]
    batches = [numbers[i : i + _VAL_BATCH] for i in range(0, len(numbers), _VAL_BATCH)]
    size = (config.val_height, config.val_width)
    return [SceneRequest(ids, config.val_views, size, _VAL_DIFFICULTY) for ids in batches]


class MiniData(PlannedData):
    """Training and held-out scenes of the small backbone; each epoch ends with a validation."""

    def __init__(self, config: MiniTrainingConfig, planner: ProceduralGenerator) -> None:
        run, self._config = config.run, config
        super().__init__(planner, config.replay, run.training_seed, run.val_every, run.num_workers)

    def request(self, batch: int) -> SceneRequest:
        """Return the scenes of a training batch on this rank."""
        step, patch = batch * self._replay.visits, self._config.network.patch_size
        plan = plan_step(self._config.curriculum, step, patch, self._seed)
        return plan.request(batch, *rank_and_world_size(self))

    def held_out_requests(self) -> list[SceneRequest]:
        """Return this rank's share of the held-out scenes."""
        return held_out_requests(self._config.held_out, *rank_and_world_size(self))


def _draw(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))
