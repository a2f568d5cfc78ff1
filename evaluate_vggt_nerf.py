"""Measure a model on views that it was not shown.

For example: python evaluate_vggt_nerf.py --ckpt runs_new/NAME/ckpts/last.ckpt --dataset_name dtu
--datadir data/dtu --out results/dtu.json
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evaluation.config import EvaluationConfig
from utils.config import parse_config


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, or 2 for bad input."""
    config = parse_config(EvaluationConfig, argv, description=__doc__ or "")
    from evaluation.run import run_evaluation
    from utils.errors import run_and_report

    return run_and_report(lambda: run_evaluation(config))


if __name__ == "__main__":
    sys.exit(main())
