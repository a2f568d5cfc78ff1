"""Any general model from its file alone: VGGT-NeRF or a baseline."""

from __future__ import annotations

from models.baselines.checkpoint import BaselineCheckpoint, baseline_checkpoint
from models.checkpoint import Checkpoint, checkpoint_from
from utils.checkpoints import load_safely, resolve_checkpoint


def read_model_file(path: str) -> Checkpoint | BaselineCheckpoint:
    """Read a checkpoint of a general model, as ``resolve_checkpoint`` takes it."""
    file = resolve_checkpoint(path)
    content = load_safely(file)
    return baseline_checkpoint(content, file) or checkpoint_from(content, file)
