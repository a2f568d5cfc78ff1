"""Write procedural scenes in DTU layout, as test data for the DTU reader.

For example: python -m apps.make_procedural_dataset --out data/procedural --scenes 3 --size 128 160
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys
from dataclasses import dataclass
from typing import Annotated

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.dtu_writer import DtuSettings, write_dtu
from datasets.procedural.generator import ProceduralGenerator
from utils.config import command
from utils.settings import Count, Length, Settings


@dataclass(frozen=True)
class DatasetConfig(Settings):
    """All settings of ``python -m apps.make_procedural_dataset``."""

    out: str
    """output folder"""
    scenes: int = 3
    """number of scenes"""
    first_scene: int = 0
    """number of the first scene"""
    seed: int = 0
    """seed of the scene generator"""
    size: Annotated[tuple[int, ...], Length((2,))] = DtuSettings.size
    """height and width of the images"""
    views: int = DtuSettings.num_views
    """views per scene, at most 49"""
    lights: tuple[int, ...] = DtuSettings.lights
    """light settings, 0 to 6"""
    held_out: int = DtuSettings.held_out
    """number of scenes for validation and test"""
    samples: Count = 3
    """rays per pixel"""
    device: str = "cpu"
    """device that renders: cpu or cuda"""


def write(config: DatasetConfig) -> str:
    """Write the data set and return a summary line."""
    worlds = ProceduralConfig(seed=config.seed, rig="dtu", samples=config.samples)
    generator = ProceduralGenerator(worlds, config.device)
    scene_ids = tuple(range(config.first_scene, config.first_scene + config.scenes))
    height, width = config.size
    settings = DtuSettings(scene_ids, (height, width), config.views, config.lights, config.held_out)
    return f"{write_dtu(generator, config.out, settings)}: {config.scenes} scenes in DTU layout"


main = command(DatasetConfig, write, __doc__)

if __name__ == "__main__":
    sys.exit(main())
