"""Look at a data set before training on it: what it holds, and whether its cameras fit its images.

For example: python -m apps.inspect_data --datadir data/my_scenes
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from datasets.config import SceneConfig
from utils.config import command
from utils.settings import Count, NonNegativeInt


@dataclass(frozen=True)
class InspectionConfig(SceneConfig):
    """All settings of ``python -m apps.inspect_data``."""

    essential_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "the data": ("datadir", "dataset_name", "scan", "image_size", "near_far"),
        "what is done": ("scenes", "out", "write_index"),
    }

    scenes: NonNegativeInt = 3
    """Scenes whose cameras are checked against their images, spread over all; 0: all"""
    pairs: Count = 8
    """Pairs of views that are matched in each of these"""
    out: str = "results/inspection"
    """Folder for the pictures"""
    write_index: bool = False
    """Write scenes.json into the data folder: training then starts without opening every scene"""


main = command(InspectionConfig, "apps.inspection.run:run_inspection", __doc__)

if __name__ == "__main__":
    sys.exit(main())
