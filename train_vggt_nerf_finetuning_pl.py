"""Fine-tune a general model on one scene.

For example: python train_vggt_nerf_finetuning_pl.py --config configs/vggt_finetune.txt --datadir
./data/dtu/scan2
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys

from training.config import FineTuningConfig
from utils.config import command

main = command(FineTuningConfig, "training.finetuning.run:run_finetuning", __doc__)

if __name__ == "__main__":
    sys.exit(main())
