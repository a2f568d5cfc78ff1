"""Error classes, and the one-line report with which every script ends."""

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

_MEMORY_MESSAGES = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")
"""Parts of the messages of PyTorch's CPU allocators, whose errors have no class of their own."""

_FEWER_PROCESSES = (
    "A data-loading process was killed, most often because memory ran out: use fewer with "
    "--num_workers; 0 loads data in the training process."
)

_MORE_FILES = (
    "Raise the limit, ulimit -n 4096, or load data in the training process with --num_workers 0."
)

_DISK_ERRORS = {
    *(errno.ENOENT, errno.EACCES, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO),
    errno.ENAMETOOLONG,
}
"""Errors of a disk that is full, broken or disconnected, or of an invalid file name."""


def first_line(error: BaseException) -> str:
    """Return at most 200 characters of a library's error message, or its class if it is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def short_repr(value: object) -> str:
    """Return at most 200 characters that represent a value, such as a path, in a message."""
    return shortened(repr(value))


def shortened(text: str) -> str:
    """Return at most 200 characters of a text, such as a name in a file, for a message."""
    return text if len(text) <= 200 else f"{text[:197]}..."


class UserError(Exception):
    """Bad input; the message is printed without a traceback and names file, value and remedy."""


class MemoryShortage(UserError):  # noqa: N818
    """Out of memory, with advice on which settings to lower."""

    def __init__(self, problem: str, remedies: Mapping[str, tuple[str, str]]) -> None:
        """``remedies`` maps a setting, or several in one string, to its current and lower value."""
        super().__init__(problem)
        self.problem, self.remedies = problem, remedies

    def __str__(self) -> str:
        """Return the problem and all remedies."""
        return self.advise([name for names in self.remedies for name in names.split()])

    def advise(self, settings: Collection[str]) -> str:
        """Return the problem and the remedies that use only the given settings."""
        remedies = [
            " ".join(f"--{name} {lower}" for name in names.split()) + f" (it was {current})"
            for names, (current, lower) in self.remedies.items()
            if all(name in settings for name in names.split())
        ]
        if not remedies:
            return f"out of memory: {self.problem}.\n{_LESS_MEMORY}"
        return f"out of memory: {self.problem}. Give {', or '.join(remedies)}"


def is_memory_error(error: BaseException) -> bool:
    """Return whether an allocator of PyTorch (GPU or CPU) or NumPy failed."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _MEMORY_MESSAGES)


class NonFiniteTrainingError(RuntimeError):
    """Gradients stayed non-finite for too many steps."""


class TrainingInterrupted(Exception):  # noqa: N818
    """The run has saved and stopped after a signal."""

    def __init__(self, signum: int, path: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; resume with --ckpt {path}")
        self.signum = signum


def run_and_report(job: Callable[[], object], settings: Collection[str] = ()) -> int:
    """Run a script's job, log its result or error in one line, and return the exit status.

    ``settings`` are the flags of the script, for errors that recommend some of them.

    0: success. 1: training diverged, memory or disk failed, a worker process was killed.
    2: bad input. 130: stopped with Ctrl-C. 128 + n: saved and stopped after signal n.
    """
    try:
        return _run_and_report(job, settings)
    except KeyboardInterrupt as stop:
        logger.warning("%s", str(stop) or "stopped")
    except (Exception, SystemExit) as error:
        # Lightning exits on Ctrl-C while it prepares a run, and what cleans up after Ctrl-C, such
        # as a progress bar that has not started yet, may fail.
        if not _follows_interrupt(error):
            raise
        logger.warning("stopped")
    return 130


def _follows_interrupt(error: BaseException) -> bool:
    """Return whether an error was raised while Ctrl-C was being handled."""
    context = error.__context__
    return context is not None and (
        isinstance(context, KeyboardInterrupt) or _follows_interrupt(context)
    )


def _run_and_report(job: Callable[[], object], settings: Collection[str]) -> int:
    raise_again()
    _set_up_console()
    try:
        logger.info("%s", job())
    except UserError as error:
        shortage = isinstance(error, MemoryShortage)
        logger.error("error: %s", error.advise(settings) if shortage else error)
        return 1 if shortage else 2
    except NonFiniteTrainingError as error:
        logger.error("error: %s", error)
        return 1
    except (RuntimeError, MemoryError) as error:
        remedy = _remedy_for(error)
        if remedy is None:
            raise
        problem = str(error).strip().partition(". ")[0].splitlines() or ["out of memory"]
        logger.error("error: %s\n%s", problem[0], remedy)
        return 1
    except OSError as error:
        if error.errno not in _DISK_ERRORS | {errno.EMFILE}:
            raise
        too_many = error.errno == errno.EMFILE
        remedy = _MORE_FILES if too_many else "Files that were saved before are complete."
        logger.error("error: %s. %s", error, remedy)
        return 1
    except TrainingInterrupted as stop:
        logger.warning("%s", stop)
        return 128 + stop.signum
    return 0


def _remedy_for(error: BaseException) -> str | None:
    if is_memory_error(error):
        return _LESS_MEMORY
    # Both can occur anywhere in the program: PyTorch raises the first from a signal handler.
    remedies = {"DataLoader worker": _FEWER_PROCESSES, "Too many open files": _MORE_FILES}
    return next((remedy for words, remedy in remedies.items() if words in str(error)), None)


def _set_up_console() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Lightning's hints about its own defaults; checkpoints are always read as plain data here.
    verbose = (
        "pytorch_lightning.trainer.connectors.checkpoint_connector",
        "pytorch_lightning.trainer.connectors.logger_connector.logger_connector",
        "pytorch_lightning.utilities.rank_zero",
    )
    for name in verbose:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Without a writable home folder it works in a temporary one, and warns of that.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Frozen and fine-tuned networks are meant to be in eval mode.
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
    # Lightning uses a deprecated function of newer PyTorch versions.
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
