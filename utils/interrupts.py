"""Handling of Ctrl-C while a script is still importing: one line and exit status 130."""

from __future__ import annotations

import os
import signal
from types import FrameType


def _stop(signum: int, frame: FrameType | None) -> None:
    # Not by an exception, which modules under import would catch or replace.
    os.write(2, b"stopped\n")
    os._exit(128 + signum)


def stop_at_once() -> None:
    """Let Ctrl-C end the process at once; scripts call this before their other imports."""
    signal.signal(signal.SIGINT, _stop)


def raise_again() -> None:
    """Let Ctrl-C raise ``KeyboardInterrupt`` again, if ``stop_at_once`` was called."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)
