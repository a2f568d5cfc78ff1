"""Train the general model: python train_vggt_nerf_pl.py --config configs/vggt_general.txt."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from training.config import GeneralTrainingConfig
from utils.config import parse_config


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status, as ``run_and_report`` documents it."""
    config = parse_config(GeneralTrainingConfig, argv, description=__doc__ or "")
    # Here, so that --help does not wait for torch.
    from training.general import run_general_training
    from utils.errors import run_and_report

    return run_and_report(lambda: f"done; checkpoints are in {run_general_training(config)}")


if __name__ == "__main__":
    sys.exit(main())
