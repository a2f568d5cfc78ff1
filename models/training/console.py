"""What a training script prints: the project's own lines, not the framework's chatter."""

from __future__ import annotations

import logging
import warnings


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
    # warmup-scheduler asks its inner schedule by the public name; the value is right.
    warnings.filterwarnings("ignore", message="To get the last learning rate computed by")
    # Lightning against newer PyTorch versions.
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
