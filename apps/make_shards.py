"""Convert a data set to shards, which training reads from disk, a web server or object storage.

For example: python -m apps.make_shards --datadir data/dtu --out shards/dtu
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys
from dataclasses import dataclass
from typing import Annotated, ClassVar

from datasets.config import SceneConfig
from utils.config import command
from utils.settings import Count, Within


@dataclass(frozen=True)
class ShardConfig(SceneConfig):
    """All settings of ``python -m apps.make_shards``."""

    essential_flags: ClassVar = {
        "the data": ("datadir", "dataset_name", "scan", "image_size"),
        "the shards": ("out", "quality", "num_workers"),
    }

    out: str = "shards"
    """output folder; scenes that it already contains are skipped"""
    quality: Annotated[int, Within(1, 100)] = 100
    """JPEG quality of the images; 100: lossless PNG"""
    num_workers: Count = 4
    """number of scenes written in parallel"""


def make_shards(config: ShardConfig) -> str:
    """Write the shards and return the flag that trains on them."""
    import shlex
    from pathlib import Path

    from datasets.data_source import DataSource
    from datasets.shards.writer import write_shards
    from utils.errors import UserError
    from utils.files import check_output_folder

    if config.dataset_name == "procedural":
        raise UserError(
            "dataset_name=procedural: worlds are generated during training; write some to disk "
            "first: python -m apps.make_procedural_dataset --out data/procedural"
        )
    out = check_output_folder(Path(config.out), "--out")
    source = DataSource(config.format_name, config.root, 1.0, config.options, config.scan)
    written, total = write_shards(source, out, config.quality, config.num_workers)
    mix = shlex.quote(f"shards:{out}")
    return f"{out}: {total} scenes, {written} of them new; train with --mix {mix}"


main = command(ShardConfig, make_shards, __doc__)

if __name__ == "__main__":
    sys.exit(main())
