"""TensorBoard's curves of a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger


def curve_logger(folder: Path, config: Any) -> TensorBoardLogger:  # noqa: ANN401
    """Write curves to ``logs`` in a folder, and all settings (a dataclass) beside them."""
    logger = TensorBoardLogger(folder, name="", version="logs")
    logger.log_hyperparams(asdict(config))
    return logger
