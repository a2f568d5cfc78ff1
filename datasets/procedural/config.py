"""Settings of the procedural scenes."""

from __future__ import annotations

from dataclasses import dataclass

from utils.errors import UserError

SCENE_TYPES = ("studio", "table", "room", "plants", "courtyard")


@dataclass(frozen=True)
class ProceduralConfig:
    """What worlds to make and how carefully to render them."""

    seed: int = 0
    """Seed of all worlds: scene 5 of seed 0 and scene 5 of seed 1 have nothing in common."""
    archetypes: str = "studio,table,room,plants,courtyard"
    """Scene types to draw from, separated by commas; name one twice to see it more often."""
    rig: str = "natural"
    """Camera paths: 'natural' suits each world, 'dtu' is the fixed cap of 49 poses."""
    samples: int = 4
    """Rays per pixel. The first goes through the pixel's centre and gives depth and object id."""
    rays_per_chunk: int = 2_000_000
    """Rays that are traced at once on an accelerator: bounds the memory, not the result."""
    textureless: float = 0.15
    """Share of worlds in which nearly every surface is plain."""
    texture_folder: str | None = None
    """Folder of photographs (JPEG or PNG) that texture some surfaces; none if absent."""
    photo_share: float = 0.3
    """Share of materials that show a photograph, if there are any."""

    def __post_init__(self) -> None:
        """Check what the renderer would otherwise fail at."""
        if not self.scene_types or not set(self.scene_types) <= set(SCENE_TYPES):
            names = ", ".join(SCENE_TYPES)
            raise UserError(f"archetypes {self.archetypes!r}: choose from {names}.")
        if self.rig not in ("natural", "dtu"):
            raise UserError(f"rig {self.rig!r}: choose 'natural' or 'dtu'.")
        if self.samples < 1:
            raise UserError(f"samples {self.samples}: at least one ray per pixel is needed.")

    @property
    def scene_types(self) -> tuple[str, ...]:
        """The names in ``archetypes``."""
        return tuple(name.strip() for name in self.archetypes.split(",") if name.strip())
