"""How programs end: errors and stops that are reported in one line."""

from __future__ import annotations

import errno
import logging
import signal
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from utils.interrupts import raise_again

logger = logging.getLogger(__name__)

_LESS_MEMORY = (
    "Less memory is needed with fewer rays at once (--batch_size in training, --chunk or "
    "--val_chunk for whole pictures), fewer sources (--n_views), samples (--N_samples) or pixels."
)

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")
"""In the words of PyTorch's allocators, whose errors on a CPU have no class of their own."""

_FEWER_PROCESSES = (
    "A process that reads data was ended from outside, most often because memory ran out: use "
    "fewer with --num_workers; 0 reads in the training process."
)

_MORE_FILES = (
    "Raise the limit, ulimit -n 4096, or read in the training process with --num_workers 0."
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


class MemoryShortage(UserError):  # noqa: N818
    """Memory does not suffice; which settings to lower depends on those that a script has."""

    def __init__(self, told: str, remedies: Mapping[str, tuple[str, str]]) -> None:
        """Keep what happened, and by settings (one, or several in a word) what is lowered to what.

        Without a script all settings are named.
        """
        super().__init__(told)
        self.told, self.remedies = told, remedies

    def __str__(self) -> str:
        """Say what happened, and how to get by with less."""
        return self.advise([name for names in self.remedies for name in names.split()])

    def advise(self, settings: Collection[str]) -> str:
        """Say what happened, and what to lower of some settings."""
        usable = {
            names: amounts
            for names, amounts in self.remedies.items()
            if all(name in settings for name in names.split())
        }
        ways = [
            " ".join(f"--{name} {after}" for name in names.split()) + f" (it was {before})"
            for names, (before, after) in usable.items()
        ]
        if not ways:
            return f"out of memory: {self.told}.\n{_LESS_MEMORY}"
        return f"out of memory: {self.told}. Give {', or '.join(ways)}"


def is_memory_error(error: BaseException) -> bool:
    """Tell whether an allocator failed: PyTorch's on a GPU or on a CPU, or NumPy's."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)


class NonFiniteTrainingError(RuntimeError):
    """Gradients stayed non-finite for too many steps."""


class TrainingInterrupted(Exception):  # noqa: N818
    """The run was asked to stop by a signal and has saved."""

    def __init__(self, signum: int, path: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; resume with --ckpt {path}")
        self.signum = signum


def run_and_report(job: Callable[[], object], settings: Collection[str] = ()) -> int:
    """Run a script's job, log what it returns or its one error, and return the exit status.

    ``settings`` are those that the script has, for errors that name some of them.

    0: done. 1: training diverged, memory or disk failed, a loading process was ended. 2: bad input.
    130: stopped with Ctrl-C. 128 + n: stopped by signal n, having saved.
    """
    try:
        return _run_and_report(job, settings)
    except KeyboardInterrupt as stop:
        logger.warning("%s", str(stop) or "stopped")
    except SystemExit as stop:
        # Lightning's own, after Ctrl-C while it prepares a run.
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        logger.warning("stopped")
    return 130


def _run_and_report(job: Callable[[], object], settings: Collection[str]) -> int:
    raise_again()
    _set_up_console()
    try:
        logger.info("%s", job())
    except (UserError, NonFiniteTrainingError) as error:
        short = isinstance(error, MemoryShortage)
        logger.error("error: %s", error.advise(settings) if short else error)
        return 1 if short or isinstance(error, NonFiniteTrainingError) else 2
    except (RuntimeError, MemoryError) as error:
        if is_memory_error(error):
            told = str(error).partition(". ")[0].splitlines() or ["out of memory"]
            logger.error("error: %s\n%s", told[0], _LESS_MEMORY)
            return 1
        # Wherever the program is, a signal ends it there.
        remedies = {"DataLoader worker": _FEWER_PROCESSES, "Too many open files": _MORE_FILES}
        remedy = next((remedy for words, remedy in remedies.items() if words in str(error)), None)
        if remedy is None:
            raise
        logger.error("error: %s\n%s", str(error).strip().partition(". ")[0], remedy)
        return 1
    except OSError as error:
        if error.errno not in _DISK | {errno.EMFILE}:
            raise
        rest = _MORE_FILES if error.errno == errno.EMFILE else "What was saved before is whole."
        logger.error("error: %s. %s", error, rest)
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
