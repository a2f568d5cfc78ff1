"""Average the weights of backbones that were trained from the same start."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from training.vggt.averaging import average_backbones
from utils.console import run_and_report


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status, as ``run_and_report`` documents it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", help="backbones of one size, each with config.json")
    parser.add_argument("--out", required=True, help="folder to write the mean to")
    arguments = parser.parse_args(argv)
    return run_and_report(lambda: f"wrote {average_backbones(arguments.folders, arguments.out)}")


if __name__ == "__main__":
    sys.exit(main())
