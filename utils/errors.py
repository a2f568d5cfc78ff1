"""How programs end: errors and stops that are reported in one line."""

from __future__ import annotations

import errno
import logging
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

from utils.interrupts import raise_again

logger = logging.getLogger(__name__)

_LESS_MEMORY = (
    "Less memory is needed with fewer rays at once (--batch_size in training, --chunk or "
    "--val_chunk for whole pictures), fewer sources (--n_views), samples (--N_samples) or pixels."
)

_FEWER_PROCESSES = (
    "A process that reads data was ended from outside, most often because memory ran out: use "
    "fewer with --num_workers; 0 reads in the training process."
)


_DISK = {
    *(errno.ENOENT, errno.EACCES, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO),
    errno.ENAMETOOLONG,
}
"""What a disk does that is full, broken or taken away, or asked for a name that it cannot have."""


def first_line(error: BaseException) -> str:
    """Return the beginning of what an error of another library says, which may quote whole files.

    It is its name if it says nothing.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class UserError(Exception):
    """Bad input: the message, which is printed alone, names the file, the value and the remedy."""


class NonFiniteTrainingError(RuntimeError):
    """Gradients stayed non-finite for too many steps."""


class TrainingInterrupted(Exception):  # noqa: N818
    """The run was asked to stop by a signal and has saved."""

    def __init__(self, signum: int, path: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; resume with --ckpt {path}")
        self.signum = signum


def run_and_report(job: Callable[[], object]) -> int:
    """Run a script's job, log what it returns or its one error, and return the exit status.

    0: done. 1: training diverged, memory or disk failed, a loading process was ended. 2: bad input.
    130: stopped with Ctrl-C. 128 + n: stopped by signal n, having saved.
    """
    try:
        return _run_and_report(job)
    except KeyboardInterrupt as stop:
        logger.warning("%s", str(stop) or "stopped")
    except SystemExit as stop:
        # Lightning's own, after Ctrl-C while it prepares a run.
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        logger.warning("stopped")
    return 130


def _run_and_report(job: Callable[[], object]) -> int:
    import torch  # Here, so that --help does not wait for it.

    raise_again()
    _set_up_console()
    try:
        logger.info("%s", job())
    except (UserError, NonFiniteTrainingError) as error:
        logger.error("error: %s", error)
        return 2 if isinstance(error, UserError) else 1
    except torch.OutOfMemoryError as error:
        logger.error("error: %s\n%s", str(error).split(". ")[0], _LESS_MEMORY)
        return 1
    except RuntimeError as error:
        # Wherever the program is, a signal ends it there.
        if "DataLoader worker" not in str(error):
            raise
        logger.error("error: %s\n%s", str(error).strip(), _FEWER_PROCESSES)
        return 1
    except OSError as error:
        if error.errno not in _DISK:
            raise
        logger.error("error: %s. What was saved before is whole.", error)
        return 1
    except TrainingInterrupted as stop:
        logger.warning("%s", stop)
        return 128 + stop.signum
    return 0


def _set_up_console() -> None:
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
