"""Ends all processes of a distributed training when one of them is lost.

In every step the processes wait for each other. Without this module the remaining ones would wait
for half an hour (NCCL), fail with an error about sockets (Gloo) or be killed without a message
(Lightning). It covers the processes of one machine that Lightning has launched; other launchers
have their own supervision.
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
"""Environment variable with the process number of the launcher."""
_POLL_SECONDS = 1.0
_GRACE_SECONDS = 5.0
"""Time in which this process can still end with an error of its own."""


@contextmanager
def end_on_lost_rank(trainer: pl.Trainer) -> Iterator[None]:
    """Log an error and exit with status 1 if another process is lost while training runs inside."""
    monitor = _RankMonitor(trainer)
    try:
        with monitor.replace_observer():
            yield
    except RuntimeError as error:
        # The classes by which PyTorch reports that another process does not answer.
        if type(error) is RuntimeError or isinstance(error, DistError):
            monitor.wait_for_loss()
        raise
    finally:
        monitor.over.set()


class _RankMonitor(threading.Thread):
    """Polls the other processes in a thread, as the main thread may wait for one of them."""

    def __init__(self, trainer: pl.Trainer) -> None:
        super().__init__(daemon=True, name="rank-monitor")
        self.trainer, self.over = trainer, threading.Event()
        self.launcher: _SubprocessScriptLauncher | None = None
        """Set in the process that launches the others."""
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            external = launcher.cluster_environment.creates_processes_externally
            self.launcher = None if external else launcher

    @contextmanager
    def replace_observer(self) -> Iterator[None]:
        """Start this thread in place of Lightning's observer, which only kills."""
        if self.launcher is None:
            if self.trainer.global_rank and _LAUNCHER in os.environ:
                self.start()
            yield
            return
        original = subprocess_script._launch_process_observer  # pyright: ignore[reportPrivateImportUsage]
        subprocess_script._launch_process_observer = lambda _: self.start()  # pyright: ignore
        os.environ[_LAUNCHER] = str(os.getpid())
        try:
            yield
        finally:
            subprocess_script._launch_process_observer = original  # pyright: ignore
            del os.environ[_LAUNCHER]

    def run(self) -> None:
        """End this process after another one, unless training ends within the grace period."""
        while not self.over.wait(_POLL_SECONDS):
            if (loss := self._describe_loss()) and not self.over.wait(_GRACE_SECONDS):
                self._end(loss)

    def wait_for_loss(self) -> None:
        """Wait until the thread can have detected a lost process."""
        if self.is_alive():
            self.join(2 * _POLL_SECONDS + _GRACE_SECONDS)

    def _describe_loss(self) -> str | None:
        if self.launcher is None:
            return None if os.getppid() == int(os.environ[_LAUNCHER]) else "process 0 is gone"
        for number, process in enumerate(self.launcher.procs, start=1):
            if status := process.poll():
                return f"process {number} {_describe_status(status)}"
        return None

    def _end(self, loss: str) -> None:
        path = last_checkpoint(self.trainer).path
        remedy = f"resume with --ckpt {path}" if path.is_file() else "start again"
        logger.error("error: %s, which trained together with this one: %s", loss, remedy)
        if self.launcher is not None:
            self.launcher.kill(signal.SIGKILL)
        # An exception would not reach a main thread that waits inside PyTorch.
        os._exit(1)


def _describe_status(status: int) -> str:
    if status > 0:
        return f"failed with exit status {status}"
    reason = " (has memory run out?)" if status == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-status).name}{reason}"
