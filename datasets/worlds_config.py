"""What a user can choose about training on procedural worlds."""

from __future__ import annotations

from dataclasses import dataclass

from datasets.procedural.config import ProceduralConfig

HELD_OUT_SEED = 90210
"""The seed of the worlds that general models are evaluated on."""


@dataclass(frozen=True)
class WorldsConfig:
    """Procedural worlds, rendered on the training device; with ``dataset_name = procedural``."""

    world_seed: int = 1
    """seed of the worlds to train on"""
    world_heights: tuple[int, ...] = (256,)
    """heights of the images in pixels; each batch draws one of them, with its width"""
    world_widths: tuple[int, ...] = (320,)
    """widths, as many as heights"""
    world_views: int = 8
    """views that are rendered of a world; each visit draws targets and sources among them"""
    world_rays: int = 4
    """rays for each pixel"""
    world_photos: str | None = None
    """folder of photographs (JPEG or PNG) that some surfaces wear; none: all is painted"""
    rays_per_chunk: int = 2_000_000
    """rays that are traced at once; bounds the memory on a GPU"""
    start_difficulty: float = 0.2
    """difficulty of the worlds at the start: 0 means near views and little clutter"""
    end_difficulty: float = 1.0
    """difficulty at the end of the ramp: 1 means wide baselines, clutter and changing light"""
    difficulty_ramp: int = 10_000
    """steps over which the difficulty rises"""
    source_noise: float = 0.4
    """deviation of the factor e^x on distances, by which the sources of a target are drawn: 0
    always takes the nearest"""
    val_worlds: int = 8
    """worlds to validate on; their numbers are kept from training"""
    val_difficulty: float = 0.5
    """their difficulty"""

    def __post_init__(self) -> None:
        """Refuse sizes that do not pair up, and what would spoil the evaluation.

        Raises:
            ValueError: Names the value.
        """
        if not self.world_heights or len(self.world_heights) != len(self.world_widths):
            raise ValueError(
                f"world_heights={self.world_heights} and world_widths={self.world_widths} must be "
                "equally many"
            )
        if min(self.world_heights + self.world_widths) < 16:
            raise ValueError("world_heights and world_widths must be 16 or more")
        if self.world_seed == HELD_OUT_SEED:
            raise ValueError(f"world_seed={HELD_OUT_SEED} is kept for evaluation; take another")
        if self.val_worlds < 1 or self.difficulty_ramp < 1:
            raise ValueError("val_worlds and difficulty_ramp must be positive")

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Heights and widths, in pairs."""
        return list(zip(self.world_heights, self.world_widths, strict=True))

    def generator_config(self) -> ProceduralConfig:
        """Return the settings of the generator."""
        return ProceduralConfig(
            seed=self.world_seed,
            samples=self.world_rays,
            texture_folder=self.world_photos,
            rays_per_chunk=self.rays_per_chunk,
        )

    def difficulty_at(self, step: int) -> float:
        """Return the difficulty of the worlds that come in at a step."""
        progress = min(1.0, step / self.difficulty_ramp)
        return self.start_difficulty + progress * (self.end_difficulty - self.start_difficulty)
