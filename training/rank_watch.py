"""When one of the processes that train together is gone, the others end, too.

They wait for each other in every step. By themselves, those that are left would wait for half an
hour (NCCL), fail in words about sockets (Gloo) or be killed without a word (Lightning's observer).
Here, each looks every second whether Lightning's launcher and what it started are still there: the
processes of one machine that Lightning starts itself. Other launchers watch over theirs.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
from pytorch_lightning.strategies.launchers import subprocess_script
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch.distributed import DistError

from training.checkpointing import last_checkpoint

logger = logging.getLogger(__name__)

_LAUNCHER = "VGGT_NERF_LAUNCHER"
"""The variable that tells a process which one has started it."""
_EVERY, _PATIENCE = 1.0, 5.0
"""Seconds between two looks, and until a process that could still end by itself is ended."""


@contextmanager
def ends_with_others(trainer: pl.Trainer) -> Iterator[None]:
    """Train inside; if another process is lost, say so and end this one with exit status 1."""
    watch = _RankWatch(trainer)
    try:
        with watch.begun():
            yield
    except RuntimeError as error:
        # How PyTorch reports that another process does not answer. Its other errors are subclasses.
        if type(error) is RuntimeError or isinstance(error, DistError):
            watch.wait_for_loss()
        raise
    finally:
        watch.over.set()


class _RankWatch(threading.Thread):
    """Look for lost processes: a thread can do so while the training waits for one of them."""

    def __init__(self, trainer: pl.Trainer) -> None:
        super().__init__(daemon=True, name="rank-watch")
        self.trainer, self.over = trainer, threading.Event()
        launcher = trainer.strategy.launcher
        self.launcher: _SubprocessScriptLauncher | None = None
        """In the process that starts the others."""
        if isinstance(launcher, _SubprocessScriptLauncher):
            started = launcher.cluster_environment.creates_processes_externally
            self.launcher = None if started else launcher

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Look inside, if there are others: in place of Lightning's observer, which only kills."""
        if self.launcher is None:
            if self.trainer.global_rank and _LAUNCHER in os.environ:
                self.start()
            yield
            return
        usual = subprocess_script._launch_process_observer  # pyright: ignore[reportPrivateImportUsage]
        subprocess_script._launch_process_observer = lambda _: self.start()  # pyright: ignore
        os.environ[_LAUNCHER] = str(os.getpid())
        try:
            yield
        finally:
            subprocess_script._launch_process_observer = usual  # pyright: ignore
            del os.environ[_LAUNCHER]

    def run(self) -> None:
        """End this process some time after another one, unless the training ends before."""
        while not self.over.wait(_EVERY):
            if (lost := self._lost()) and not self.over.wait(_PATIENCE):
                self._end(lost)

    def wait_for_loss(self) -> None:
        """Give the thread the time to find out which process is lost."""
        if self.is_alive():
            self.join(2 * _EVERY + _PATIENCE)

    def _lost(self) -> str | None:
        """Return what is known of a process that failed, or None."""
        if self.launcher is None:
            return None if os.getppid() == int(os.environ[_LAUNCHER]) else "process 0 is gone"
        for number, process in enumerate(self.launcher.procs, start=1):
            if status := process.poll():
                return f"process {number} {_how(status)}"
        return None

    def _end(self, lost: str) -> None:
        last = last_checkpoint(self.trainer).path
        remedy = f"resume with --ckpt {last}" if last.is_file() else "start again"
        logger.error("error: %s, which trained together with this one: %s", lost, remedy)
        if self.launcher is not None:
            self.launcher.kill(signal.SIGKILL)
        # The training may wait within PyTorch, where no exception reaches it.
        os._exit(1)


def _how(status: int) -> str:
    if status > 0:
        return f"failed with exit status {status}"
    reason = " (has memory run out?)" if status == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-status).name}{reason}"
