"""One backbone from several of one descent: the mean of their weights.

Runs that went on from the same weights lie in one basin, and the middle of it is often better than
any of them, also on pictures unlike those they were trained on ("Model soups", Wortsman et al.
2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from models.vggt.network import VGGT
from training.vggt.export import export_vggt
from utils.errors import UserError


def average_backbones(folders: Sequence[str], out: str) -> Path:
    """Write the mean of several backbones' weights; return the file.

    Args:
        folders: As ``VGGT.from_pretrained`` takes them, two or more of one size.
        out: Folder of the mean.

    Raises:
        UserError: A folder is no backbone, or one is of another size than the first.
    """
    if len(folders) < 2:
        raise UserError(f"{list(folders)}: a mean takes at least two backbones")
    networks = [VGGT.from_pretrained(folder) for folder in folders]
    first = networks[0]
    for folder, network in zip(folders, networks, strict=True):
        if network.config != first.config:
            raise UserError(f"{folder}: is of another size than {folders[0]}; both must be alike")
    states = [network.state_dict() for network in networks]
    mean = {
        name: torch.stack([state[name].float() for state in states]).mean(0) for name in states[0]
    }
    first.float().load_state_dict(mean)
    return export_vggt(first, out)
