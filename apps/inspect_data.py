"""Inspect a data set before training: its contents, and whether its cameras match its images.

For example: python -m apps.inspect_data --datadir data/my_scenes
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys
from dataclasses import dataclass
from typing import ClassVar

from datasets.config import SceneConfig
from utils.config import command
from utils.settings import Count, NonNegativeInt


@dataclass(frozen=True)
class InspectionConfig(SceneConfig):
    """All settings of ``python -m apps.inspect_data``."""

    essential_flags: ClassVar = {
        "the data": ("datadir", "dataset_name", "scan", "image_size", "near_far"),
        "the inspection": ("scenes", "out", "write_index"),
    }

    scenes: NonNegativeInt = 3
    """number of scenes whose cameras are checked against the images, spread evenly; 0: all"""
    pairs: Count = 8
    """pairs of views that are matched per checked scene"""
    out: str = "results/inspection"
    """folder for the figures"""
    write_index: bool = False
    """write scenes.json into the data folder, so that training starts without opening all scenes"""


main = command(InspectionConfig, "apps.inspection.run:run_inspection", __doc__)

if __name__ == "__main__":
    sys.exit(main())
