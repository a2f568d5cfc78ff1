"""Average the weights of backbones that were trained from the same start.

The mean is often better than any of them ("Model soups", Wortsman et al., 2022).
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status, as ``run_and_report`` documents it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", help="backbones of one size, each with config.json")
    parser.add_argument("--out", required=True, help="folder to write the mean to")
    arguments = parser.parse_args(argv)

    from utils.errors import run_and_report

    return run_and_report(lambda: f"wrote {average_backbones(arguments.folders, arguments.out)}")


def average_backbones(folders: Sequence[str], out: str) -> Path:
    """Write the mean of several backbones' weights; return the file."""
    import torch

    from models.vggt.network import VGGT
    from utils.errors import UserError

    if len(folders) < 2:
        raise UserError(f"{list(folders)}: a mean takes at least two backbones")
    networks = [VGGT.from_pretrained(folder) for folder in folders]
    first = networks[0]
    for folder, network in zip(folders, networks, strict=True):
        if network.config != first.config:
            raise UserError(f"{folder}: is of another size than {folders[0]}; both must be alike")
    states = [network.state_dict() for network in networks]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    first.load_state_dict(mean)
    return first.save_pretrained(out)


if __name__ == "__main__":
    sys.exit(main())
