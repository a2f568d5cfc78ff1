"""Train the small backbone: python train_vggt_mini_pl.py --config configs/vggt_mini.txt."""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys

from training.vggt.config import MiniTrainingConfig
from utils.config import command


def train(config: MiniTrainingConfig) -> str:
    """Train, or evaluate a trained backbone, and return a summary."""
    from training.vggt.run import evaluate_folder, run_mini_training

    if config.run.evaluate:
        return evaluate_folder(config)
    return f"done; the averaged weights are in {run_mini_training(config)}"


main = command(MiniTrainingConfig, train, __doc__)

if __name__ == "__main__":
    sys.exit(main())
