"""Compare models on the same views: a table of metrics, and images side by side.

For example: python -m apps.compare --ckpts ckpts/vggt-mini-nerf ckpts/mvsnerf-v0.tar --datadir
data/nerf_llff_data/fern. Each checkpoint is a general model, a baseline or a fine-tuned scene. If
one is a fine-tuned scene, its test views are compared, by default on the data that it was trained
on. A single checkpoint gives a strip per view: sources, ground truth, prediction, error, depth.
Several checkpoints give a column each, with errors and depths on one scale.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from datasets.config import DataChoice, HeldOutScenes
from evaluation.config import DEFAULT_CKPT, RenderingModel
from utils.config import command
from utils.settings import Alias, Within


@dataclass(frozen=True)
class ComparisonConfig(RenderingModel):
    """All settings of ``python -m apps.compare``."""

    essential_flags: ClassVar = {
        "the models": ("ckpts", "names", "device"),
        "the data": ("dataset_name", "datadir", "scan", "image_size"),
        "the views": ("targets", "sources", "n_views"),
        "the results": ("out", "pictures", "height"),
    }

    data: DataChoice = field(default_factory=DataChoice)
    held_out: HeldOutScenes = field(default_factory=HeldOutScenes)
    ckpts: Annotated[tuple[str, ...], Alias(("ckpt",))] = (DEFAULT_CKPT,)
    """general checkpoints (for a folder the newest in it), baselines and fine-tuned scenes"""
    names: tuple[str, ...] = ()
    """labels of the checkpoints; none: the names of their runs"""
    out: str = "results/comparison"
    """folder for comparison.json and an image or video of each scene"""
    pictures: Literal["jpg", "png", "mp4", "none"] = "jpg"
    """jpg, png: an image of at most 3 MiB per scene; mp4: a video that shows each view for 1 s"""
    height: Annotated[int, Within(16)] = 160
    """height of each panel in pixels"""
    lpips_weights: str | None = None
    """VGG-16 weights of torchvision for LPIPS; none: PyTorch's download folder"""

    def __post_init__(self) -> None:
        """Check that there is a name for each checkpoint."""
        super().__post_init__()
        if self.names and len(self.names) != len(self.ckpts):
            raise ValueError(f"names={self.names}: give {len(self.ckpts)}, one per checkpoint")


main = command(ComparisonConfig, "apps.comparison:run_comparison", __doc__)

if __name__ == "__main__":
    sys.exit(main())
