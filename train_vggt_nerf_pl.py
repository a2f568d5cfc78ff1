"""Train the general model: python train_vggt_nerf_pl.py --config configs/vggt_general.txt."""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys

from training.config import GeneralTrainingConfig
from utils.config import command


def train(config: GeneralTrainingConfig) -> str:
    """Train and return the folder of the checkpoints."""
    from training.general import run_general_training

    return f"done; checkpoints are in {run_general_training(config)}"


main = command(GeneralTrainingConfig, train, __doc__)

if __name__ == "__main__":
    sys.exit(main())
