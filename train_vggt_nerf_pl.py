"""Train the general model: python train_vggt_nerf_pl.py --config configs/vggt_general.txt."""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys

from training.config import GeneralTrainingConfig
from utils.config import command


def train(config: GeneralTrainingConfig) -> str | None:
    """Train; the first of several processes returns a message with the folder of checkpoints."""
    from pytorch_lightning.utilities import rank_zero_only

    from training.general import run_general_training

    folder = run_general_training(config)
    rank: int = rank_zero_only.rank  # pyright: ignore[reportFunctionMemberAccess]
    return None if rank else f"done; checkpoints are in {folder}"


main = command(GeneralTrainingConfig, train, __doc__)

if __name__ == "__main__":
    sys.exit(main())
