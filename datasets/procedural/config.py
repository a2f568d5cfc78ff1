"""Settings of the procedural scenes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

from utils.errors import UserError
from utils.settings import Count, NonNegative, Settings, Share, Within

SCENE_TYPES = ("studio", "table", "room", "plants", "courtyard")
WorldSides = Annotated[tuple[int, ...], Within(16)]
HELD_OUT_SEED = 90210
"""Seed of the procedural worlds that general models are evaluated on."""


@dataclass(frozen=True)
class WorldConfig(Settings):
    """The procedural worlds of a run; scene 5 of seed 0 and of seed 1 have nothing in common."""

    seed: int = 0
    """seed of all scenes"""
    samples: Count = 4
    """rays per pixel; the first goes through its centre and gives depth and object id"""
    rays_per_chunk: Count = 2_000_000
    """rays that are traced at once: bounds the memory, not the result"""
    texture_folder: str | None = None
    """folder of photographs (JPEG or PNG) for the textures of some surfaces"""
    photo_share: Share = 0.3
    """share of materials that are textured with a photograph, if there are any"""


@dataclass(frozen=True)
class ProceduralConfig(WorldConfig):
    """What worlds to make and how carefully to render them."""

    archetypes: str = "studio,table,room,plants,courtyard"
    """Scene types to draw from, separated by commas; name one twice to see it more often."""
    rig: str = "natural"
    """Camera paths: 'natural' suits each world, 'dtu' is the fixed cap of 49 poses."""
    textureless: Share = 0.15
    """Share of worlds in which nearly every surface is plain."""

    def __post_init__(self) -> None:
        """Check what the renderer would otherwise fail at."""
        super().__post_init__()
        if not self.scene_types or not set(self.scene_types) <= set(SCENE_TYPES):
            names = ", ".join(SCENE_TYPES)
            raise UserError(f"archetypes {self.archetypes!r}: choose from {names}.")
        if self.rig not in ("natural", "dtu"):
            raise UserError(f"rig {self.rig!r}: choose 'natural' or 'dtu'.")

    @property
    def scene_types(self) -> tuple[str, ...]:
        """The names in ``archetypes``."""
        return tuple(name.strip() for name in self.archetypes.split(",") if name.strip())


@dataclass(frozen=True)
class ProceduralDataConfig(Settings):
    """Procedural worlds, rendered on the training device; with ``dataset_name = procedural``."""

    world_seed: int = 1
    """seed of the worlds to train on"""
    world_heights: WorldSides = (256,)
    """heights of the images in pixels; each batch draws one of them, with its width"""
    world_widths: WorldSides = (320,)
    """widths, as many as heights"""
    world_views: Count = 8
    """views that are rendered of a world; each visit draws targets and sources among them"""
    world_rays: Count = 4
    """rays for each pixel"""
    world_photos: str | None = None
    """folder of photographs (JPEG or PNG) that texture some surfaces; none: patterns only"""
    rays_per_chunk: Count = 2_000_000
    """rays that are traced at once; bounds the memory on a GPU"""
    start_difficulty: Share = 0.2
    """difficulty of the worlds at the start: 0 means near views and little clutter"""
    end_difficulty: Share = 1.0
    """difficulty at the end of the ramp: 1 means wide baselines, clutter and changing light"""
    difficulty_ramp: Count = 10_000
    """steps over which the difficulty rises"""
    source_noise: NonNegative = 0.4
    """deviation of the factor e^x on distances, by which the sources of a target are drawn: 0
    always takes the nearest"""
    val_worlds: Count = 8
    """worlds to validate on; their numbers are kept from training"""
    val_difficulty: Share = 0.5
    """their difficulty"""

    def __post_init__(self) -> None:
        """Check the bounds, that sizes pair up, and that no evaluated world is trained on."""
        super().__post_init__()
        if len(self.world_heights) != len(self.world_widths):
            raise ValueError(
                f"world_heights={self.world_heights} and world_widths={self.world_widths} must be "
                "equally many"
            )
        if self.world_seed == HELD_OUT_SEED:
            raise ValueError(f"world_seed={HELD_OUT_SEED} is kept for evaluation; take another")

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Heights and widths, in pairs."""
        return list(zip(self.world_heights, self.world_widths, strict=True))

    def difficulty_at(self, step: int) -> float:
        """Return the difficulty of the worlds that come in at a step."""
        progress = min(1.0, step / self.difficulty_ramp)
        return self.start_difficulty + progress * (self.end_difficulty - self.start_difficulty)


@dataclass(frozen=True)
class ReplayConfig(Settings):
    """How often rendered scenes are trained on; see ``datasets.procedural.replay``."""

    visits: Count = 4
    """steps for each rendered batch of scenes"""
    replay_batches: Count = 16
    """rendered batches that are kept to go back to"""

    def kept_batches(self, step: int) -> range:
        """Return the numbers of the batches that a step or a later one may go back to."""
        newest = step // self.visits
        return range(max(0, newest - self.replay_batches + 1), newest + 1)

    def missing_batches(self, step: int, held: Collection[int]) -> tuple[int, ...]:
        """Return which batches have to be rendered at a step, given those that are held."""
        return tuple(number for number in self.kept_batches(step) if number not in held)
