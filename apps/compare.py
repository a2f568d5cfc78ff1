"""Compare models on the same views: a table of figures, and pictures side by side.

For example: python -m apps.compare --ckpts ckpts/vggt-mini-nerf ckpts/mvsnerf-v0.tar --datadir
data/nerf_llff_data/fern. Each checkpoint is a general model, a baseline or a fine-tuned scene; with
a fine-tuned scene among them the views are its test views, and data that are not named those that
it was read from. One checkpoint makes a strip of each view: sources, truth, prediction, error,
depth. Several make a column each, with errors and depths on one scale.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from datasets.config import DataChoice, HeldOutScenes
from evaluation.config import DEFAULT_CKPT, RenderingModel
from utils.config import command
from utils.settings import Alias, Within


@dataclass(frozen=True)
class ComparisonConfig(RenderingModel):
    """All settings: what is compared, and how it is shown."""

    essential_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "the models": ("ckpts", "names", "device"),
        "the data": ("dataset_name", "datadir", "scan", "image_size"),
        "the views": ("targets", "sources", "n_views"),
        "the results": ("out", "pictures", "height"),
    }

    data: DataChoice = field(default_factory=DataChoice)
    held_out: HeldOutScenes = field(default_factory=HeldOutScenes)
    ckpts: Annotated[tuple[str, ...], Alias(("ckpt",))] = (DEFAULT_CKPT,)
    """general checkpoints (of a folder the newest one in it), baselines and fine-tuned scenes"""
    names: tuple[str, ...] = ()
    """labels of the checkpoints; none: the names of their runs"""
    out: str = "results/comparison"
    """folder for comparison.json and a picture of each scene"""
    pictures: Literal["jpg", "png", "mp4", "none"] = "jpg"
    """jpg, png: a picture of at most 3 MiB; mp4: a video that shows each view a second"""
    height: Annotated[int, Within(16)] = 160
    """rows of each small picture"""
    lpips_weights: str | None = None
    """VGG-16 weights of torchvision for LPIPS; none: where PyTorch keeps them once downloaded"""

    def __post_init__(self) -> None:
        """Check that names and checkpoints match."""
        super().__post_init__()
        if self.names and len(self.names) != len(self.ckpts):
            raise ValueError(f"names={self.names}: there are {len(self.ckpts)} checkpoints")


main = command(ComparisonConfig, "apps.comparison:run_comparison", __doc__)

if __name__ == "__main__":
    sys.exit(main())
