"""Train the small backbone: python train_vggt_mini_pl.py --config configs/vggt_mini.txt."""

from __future__ import annotations

import logging
import sys

from models.training.checkpointing import TrainingInterrupted
from models.vggt_training.mini_config import MiniTrainingConfig
from models.vggt_training.mini_module import NonFiniteTrainingError
from models.vggt_training.mini_run import evaluate_folder, run_mini_training
from utils.config import parse_config
from utils.errors import UserError


def main() -> int:
    """Return the exit status: 0 done, 2 bad input, 1 diverged, 128 + n stopped by signal n."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = parse_config(MiniTrainingConfig, description=__doc__ or "")
    try:
        if config.run.evaluate:
            logging.info("%s", evaluate_folder(config))
            return 0
        folder = run_mini_training(config)
    except UserError as error:
        logging.error("error: %s", error)
        return 2
    except NonFiniteTrainingError as error:
        logging.error("error: %s", error)
        return 1
    except TrainingInterrupted as stop:
        logging.warning("%s", stop)
        return 128 + stop.signum
    logging.info("done; the averaged weights are in %s", folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
