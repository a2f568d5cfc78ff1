"""Average the weights of backbones that were trained from the same initial weights.

The average is often better than each of them ("Model soups", Wortsman et al., 2022).
For example: python -m apps.average_backbones runs_mini/A/export runs_mini/B/export --out mean
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
    """Run the script and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", help="backbones of one size, each with config.json")
    parser.add_argument("--out", required=True, help="folder for the averaged backbone")
    arguments = parser.parse_args(argv)

    from utils.errors import run_and_report

    return run_and_report(lambda: f"wrote {average_backbones(arguments.folders, arguments.out)}")


def average_backbones(folders: Sequence[str], out: str) -> Path:
    """Write the mean of the backbones' weights and return the file."""
    import torch

    from models.vggt.network import VGGT
    from utils.errors import UserError

    if len(folders) < 2:
        raise UserError(f"{list(folders)}: give at least two backbones to average")
    networks = [VGGT.from_pretrained(folder) for folder in folders]
    for folder, network in zip(folders, networks, strict=True):
        if network.config != networks[0].config:
            raise UserError(f"{folder}: has another size than {folders[0]}; give equal sizes")
    states = [network.state_dict() for network in networks]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    networks[0].load_state_dict(mean)
    return networks[0].save_pretrained(out)


if __name__ == "__main__":
    sys.exit(main())
