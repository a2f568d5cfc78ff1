"""Paint pictures that procedural worlds can wear: python make_textures.py --out textures.

Overlapping shapes of all sizes, each with a shade and a grain of its own, have much of the
statistics of photographs (dead leaves: Lee, Mumford and Huang, "Occlusion models for natural
images", 2001). Give the folder to training as texture_folder or world_photos, with photographs of
your own beside them if you have some.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.procedural.dead_leaves import dead_leaves
from utils.config import parse_config
from utils.console import run_and_report
from utils.errors import UserError
from utils.files import check_output_folder
from utils.images import save_image


@dataclass(frozen=True)
class TextureConfig:
    """What to paint and where."""

    out: str = "textures"
    """folder for the pictures"""
    count: int = 160
    """pictures"""
    side: int = 256
    """their width and height in pixels"""
    seed: int = 0
    """seed of the first picture"""

    def __post_init__(self) -> None:
        """Refuse empty pictures."""
        if self.count < 1 or self.side < 16:
            raise ValueError(f"count={self.count} must be positive, side={self.side} at least 16")


def paint(config: TextureConfig) -> str:
    """Write the pictures and say where they are.

    Raises:
        UserError: The folder holds pictures already.
    """
    folder = check_output_folder(Path(config.out))
    if any(folder.glob("leaves_*.jpg")):
        raise UserError(f"{folder}: already holds pictures; name another --out or remove them")
    for index in range(config.count):
        picture = dead_leaves(config.side, config.seed + index)
        save_image(folder / f"leaves_{index:03d}.jpg", picture)
    return f"{config.count} pictures in {folder}"


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, or 2 for bad input."""
    config = parse_config(TextureConfig, argv, description=__doc__ or "")
    return run_and_report(lambda: paint(config))


if __name__ == "__main__":
    sys.exit(main())
