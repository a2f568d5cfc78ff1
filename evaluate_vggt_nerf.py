"""Evaluate a model on held-out views.

For example: python evaluate_vggt_nerf.py --ckpt runs_new/NAME/ckpts/last.ckpt --dataset_name dtu
--datadir data/dtu --out results/dtu.json
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys

from evaluation.config import EvaluationConfig
from utils.config import command

main = command(EvaluationConfig, "evaluation.run:run_evaluation", __doc__)

if __name__ == "__main__":
    sys.exit(main())
