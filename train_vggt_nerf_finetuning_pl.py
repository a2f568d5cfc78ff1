"""Fine-tune a general model on one scene.

For example: python train_vggt_nerf_finetuning_pl.py --config configs/vggt_finetune.txt --datadir
./data/dtu/scan2
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from training.config import FineTuningConfig
from utils.config import parse_config


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status, as ``run_and_report`` documents it."""
    config = parse_config(FineTuningConfig, argv, description=__doc__ or "")
    # Here, so that --help does not wait for torch.
    from training.finetuning import run_finetuning
    from utils.errors import run_and_report

    return run_and_report(lambda: run_finetuning(config))


if __name__ == "__main__":
    sys.exit(main())
