"""From few near views at low resolution to many wide ones at high resolution.

What a step trains on is a function of the step alone, so that a resumed run goes on as if it had
never stopped and all devices agree on shapes without talking.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from datasets.replay import FIRST_TRAINING_SCENE
from utils.seeding import generator_for


@dataclass(frozen=True)
class CurriculumConfig:
    """The shapes and the difficulty of training scenes over time."""

    ramp_steps: int = 15_000
    """steps until the final resolution, number of views and difficulty are reached"""
    ramp_stages: int = 5
    """levels on the way there: few, since every new image shape costs compilation"""
    min_views: int = 2
    """fewest views of a scene"""
    start_max_views: int = 4
    """most views at the start"""
    max_views: int = 8
    """most views at the end"""
    start_patches: int = 108
    """patches of an image at the start"""
    end_patches: int = 320
    """patches of an image at the end; 320 are 224x280 pixels"""
    patch_spread: float = 1.0
    """images have up to this many times fewer or more patches than the stage says"""
    patches_per_step: int = 32_768
    """patches in a step on each device; how many scenes that is depends on their shape"""
    aspects: tuple[float, ...] = (0.75, 1.0, 1.25, 1.34, 1.5, 1.78)
    """ratios of width to height that are drawn from"""
    start_difficulty: float = 0.0
    """difficulty of the scenes at the start"""
    end_difficulty: float = 1.0
    """difficulty of the scenes at the end"""

    def __post_init__(self) -> None:
        """Refuse a curriculum that cannot fill a step."""
        if not 1 <= self.min_views <= self.start_max_views <= self.max_views:
            raise ValueError("1 <= min_views <= start_max_views <= max_views is violated")
        if min(self.start_patches, self.end_patches, self.ramp_stages) < 1:
            raise ValueError("start_patches, end_patches and ramp_stages must be positive")
        if self.patch_spread < 1:
            raise ValueError(f"patch_spread={self.patch_spread} must be at least 1")
        most = round(max(self.start_patches, self.end_patches) * self.patch_spread)
        if self.patches_per_step < most * self.max_views:
            raise ValueError(
                f"patches_per_step={self.patches_per_step} does not hold one scene of "
                f"{self.max_views} views of {most} patches"
            )
        if not self.aspects or min(self.aspects) <= 0:
            raise ValueError("aspects must be positive numbers")


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

    def scene_ids(self, batch: int, rank: int, world_size: int) -> range:
        """Return scenes that no other batch and no other device sees."""
        first = FIRST_TRAINING_SCENE + (batch * world_size + rank) * self.max_scenes
        return range(first, first + self.num_scenes)


def plan_step(config: CurriculumConfig, step: int, patch: int, seed: int) -> StepPlan:
    """Return the plan of a step."""
    stage = min(step * config.ramp_stages // max(config.ramp_steps, 1), config.ramp_stages)
    progress = stage / config.ramp_stages
    generator = generator_for("cpu", seed, step)
    most_views = round(
        config.start_max_views + progress * (config.max_views - config.start_max_views)
    )
    num_views = _draw(config.min_views, most_views, generator)
    patches = config.start_patches * (config.end_patches / config.start_patches) ** progress
    aspect = config.aspects[_draw(0, len(config.aspects) - 1, generator)]
    if config.patch_spread > 1:
        patches *= config.patch_spread ** (2 * float(torch.rand((), generator=generator)) - 1)
    rows = max(1, round((patches / aspect) ** 0.5))
    columns = max(1, round(patches / rows))
    fewest = config.min_views * min(config.start_patches, config.end_patches) / config.patch_spread
    return StepPlan(
        num_scenes=max(1, config.patches_per_step // (num_views * rows * columns)),
        num_views=num_views,
        size=(rows * patch, columns * patch),
        difficulty=config.start_difficulty
        + progress * (config.end_difficulty - config.start_difficulty),
        max_scenes=int(2 * config.patches_per_step / fewest),
    )


def _draw(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))
