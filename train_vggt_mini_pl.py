"""Train the small backbone: python train_vggt_mini_pl.py --config configs/vggt_mini.txt."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from training.vggt.config import MiniTrainingConfig
from utils.config import parse_config


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status, as ``run_and_report`` documents it."""
    config = parse_config(MiniTrainingConfig, argv, description=__doc__ or "")

    from training.vggt.run import evaluate_folder, run_mini_training
    from utils.errors import run_and_report

    if config.run.evaluate:
        return run_and_report(lambda: evaluate_folder(config))
    return run_and_report(
        lambda: f"done; the averaged weights are in {run_mini_training(config)}",
    )


if __name__ == "__main__":
    sys.exit(main())
