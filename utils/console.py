"""What a training script prints, and how it ends."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import torch

from utils.errors import NonFiniteTrainingError, TrainingInterrupted, UserError

logger = logging.getLogger(__name__)

_LESS_MEMORY = (
    "Less memory is needed with fewer rays at once (--batch_size in training, --chunk or "
    "--val_chunk for whole pictures), fewer sources (--n_views), samples (--N_samples) or pixels."
)


def run_and_report(job: Callable[[], str]) -> int:
    """Run a script's job, log what it returns or its one error, and return the exit status.

    0: done. 1: training diverged, or a GPU's memory ran out. 2: bad input. 128 + n: stopped by
    signal n, having saved.
    """
    set_up_console()
    try:
        logger.info("%s", job())
    except UserError as error:
        logger.error("error: %s", error)
        return 2
    except NonFiniteTrainingError as error:
        logger.error("error: %s", error)
        return 1
    except torch.OutOfMemoryError as error:
        logger.error("error: %s", str(error).split(". ")[0])
        logger.error("%s", _LESS_MEMORY)
        return 1
    except TrainingInterrupted as stop:
        logger.warning("%s", stop)
        return 128 + stop.signum
    return 0


def set_up_console() -> None:
    """Log plain messages and silence known, harmless notes of the libraries, each by name."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Notes of Lightning's about its own defaults; loading is always weights-only here.
    chatty = (
        "pytorch_lightning.trainer.connectors.checkpoint_connector",
        "pytorch_lightning.trainer.connectors.logger_connector.logger_connector",
        "pytorch_lightning.utilities.rank_zero",
    )
    for name in chatty:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Frozen and fine-tuned networks are meant to be in eval mode.
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
    # Lightning against newer PyTorch versions.
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
