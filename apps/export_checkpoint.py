"""Make a checkpoint small enough to share: without optimiser, with what rendering needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from training.export import export_checkpoint
from utils.config import parse_config
from utils.console import run_and_report


@dataclass(frozen=True)
class ExportConfig:
    """What to share, and where."""

    ckpt: str
    """checkpoint of general training; a folder stands for the newest .ckpt in it"""
    out: str = "exported"
    """folder to write model.ckpt to"""
    vggt_path: str | None = None
    """where those who load it find the backbone; none: where the run found it"""
    backbone_size: int | None = None
    """longer side, in pixels, of what the backbone will see; none: as in training"""
    N_samples: int | None = None
    """samples on each ray when it renders; none: as in training"""
    sampling_spread: bool | None = None
    """whether samples are also drawn beside where the volume found mass; none: as in training"""

    def __post_init__(self) -> None:
        """Refuse sizes that no patch grid fits, and rays that nothing can be seen on."""
        if self.backbone_size is not None and self.backbone_size < 28:
            raise ValueError(f"backbone_size={self.backbone_size} is too small, take at least 28")
        if self.N_samples is not None and self.N_samples < 2:
            raise ValueError(f"N_samples={self.N_samples}: need at least 2")


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status, as ``run_and_report`` documents it."""
    config = parse_config(ExportConfig, argv, description=__doc__ or "")
    sampling = {"N_samples": config.N_samples, "sampling_spread": config.sampling_spread}
    changes = config.vggt_path, config.backbone_size, sampling
    return run_and_report(lambda: f"wrote {export_checkpoint(config.ckpt, config.out, *changes)}")


if __name__ == "__main__":
    sys.exit(main())
