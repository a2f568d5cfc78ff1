"""Settings of procedural worlds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

from utils.errors import UserError
from utils.settings import Count, NonNegative, Settings, Share, Within

SCENE_TYPES = ("studio", "table", "room", "plants", "courtyard")
WorldSides = Annotated[tuple[int, ...], Within(16)]
HELD_OUT_SEED = 90210
"""Seed of the procedural worlds reserved for evaluation."""


@dataclass(frozen=True)
class WorldConfig(Settings):
    """Seed and rendering quality of procedural worlds."""

    seed: int = 0
    """seed of all scenes; equal scene numbers of different seeds are unrelated"""
    samples: Count = 4
    """rays per pixel; the first passes through the pixel centre and gives the depth"""
    rays_per_chunk: Count = 2_000_000
    """rays traced at once on a GPU; bounds the memory, without changing the result"""
    texture_folder: str | None = None
    """folder of photographs (JPEG or PNG) for the textures of some surfaces"""
    photo_share: Share = 0.3
    """share of materials textured with a photograph, if texture_folder is given"""


@dataclass(frozen=True)
class ProceduralConfig(WorldConfig):
    """Distribution of procedural worlds."""

    scene_types: tuple[str, ...] = SCENE_TYPES
    """Types that a world is drawn from; a repeated type is drawn more often."""
    rig: str = "natural"
    """Camera paths: 'natural' suits each world, 'dtu' is a fixed cap of 49 poses."""
    textureless: Share = 0.15
    """Share of worlds in which nearly every surface is plain."""

    def __post_init__(self) -> None:
        """Check the names of scene types and rig."""
        super().__post_init__()
        if not self.scene_types or not set(self.scene_types) <= set(SCENE_TYPES):
            names = ", ".join(SCENE_TYPES)
            raise UserError(f"scene_types {self.scene_types}: choose from {names}.")
        if self.rig not in ("natural", "dtu"):
            raise UserError(f"rig {self.rig!r}: choose 'natural' or 'dtu'.")


@dataclass(frozen=True)
class ProceduralDataConfig(Settings):
    """Procedural worlds as training data (dataset_name procedural, or procedural in mix)."""

    world_seed: int = 1
    """seed of the worlds to train on"""
    world_heights: WorldSides = (256,)
    """heights of the images in pixels; each batch draws one, with the width at the same index"""
    world_widths: WorldSides = (320,)
    """widths of the images in pixels, one for each height"""
    world_views: Count = 8
    """rendered views of a world; each visit draws targets and sources among them"""
    world_rays: Count = 4
    """rays per pixel"""
    world_photos: str | None = None
    """folder of photographs (JPEG or PNG) for the textures of some surfaces; none: patterns only"""
    rays_per_chunk: Count = 2_000_000
    """rays traced at once; bounds the memory on a GPU"""
    start_difficulty: Share = 0.2
    """difficulty of the worlds at the start; 0: short baselines and little clutter"""
    end_difficulty: Share = 1.0
    """difficulty at the end of the ramp; 1: wide baselines, clutter and changing light"""
    difficulty_ramp: Count = 10_000
    """steps over which the difficulty rises linearly"""
    source_noise: NonNegative = 0.4
    """standard deviation of log-normal factors on the distances by which sources are ranked; 0: the
    nearest views are the sources"""
    val_worlds: Count = 8
    """validation worlds, whose scene numbers training does not use"""
    val_difficulty: Share = 0.5
    """difficulty of the validation worlds"""

    def __post_init__(self) -> None:
        """Check the bounds, the number of sizes, and the seed."""
        super().__post_init__()
        if len(self.world_heights) != len(self.world_widths):
            raise ValueError(
                f"world_heights={self.world_heights} and world_widths={self.world_widths} must be "
                "equally many"
            )
        if self.world_seed == HELD_OUT_SEED:
            raise ValueError(f"world_seed={HELD_OUT_SEED} is kept for evaluation; use another")

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Pairs of height and width."""
        return list(zip(self.world_heights, self.world_widths, strict=True))

    def difficulty_at(self, step: int) -> float:
        """Return the difficulty of worlds rendered for a step."""
        progress = min(1.0, step / self.difficulty_ramp)
        return self.start_difficulty + progress * (self.end_difficulty - self.start_difficulty)


@dataclass(frozen=True)
class ReplayConfig(Settings):
    """Reuse of rendered scenes in training; see ``datasets.procedural.replay``."""

    visits: Count = 4
    """steps for each new rendered batch of scenes"""
    replay_batches: Count = 16
    """rendered batches that are kept for reuse"""

    def kept_batches(self, step: int) -> range:
        """Return the numbers of the batches that this or later steps may use."""
        newest = step // self.visits
        return range(max(0, newest - self.replay_batches + 1), newest + 1)

    def missing_batches(self, step: int, held: Collection[int]) -> tuple[int, ...]:
        """Return the batches to render at a step, given those that are held."""
        return tuple(number for number in self.kept_batches(step) if number not in held)
