"""Train the general model: python train_vggt_nerf_pl.py --config configs/vggt_general.txt."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from models.training.checkpointing import TrainingInterrupted
from models.training.console import set_up_console
from models.training.general_module import NonFiniteTrainingError
from models.training.general_run import GeneralTrainingConfig, run_general_training
from utils.config import parse_config
from utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0 done, 2 bad input, 1 diverged, 128 + n stopped by signal n."""
    set_up_console()
    config = parse_config(GeneralTrainingConfig, argv, description=__doc__ or "")
    try:
        folder = run_general_training(config)
    except UserError as error:
        logging.error("error: %s", error)
        return 2
    except NonFiniteTrainingError as error:
        logging.error("error: %s", error)
        return 1
    except TrainingInterrupted as stop:
        logging.warning("%s", stop)
        return 128 + stop.signum
    logging.info("done; checkpoints are in %s", folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
