"""Estimate the cameras of photos that have none, with VGGT.

For example: python -m apps.estimate_cameras --photos data/my_photos
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from apps.photo_cameras import PhotoConfig, run_estimation
from utils.config import parse_config
from utils.console import run_and_report


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, or 2 for bad input."""
    config = parse_config(PhotoConfig, argv, description=__doc__ or "")
    return run_and_report(lambda: run_estimation(config))


if __name__ == "__main__":
    sys.exit(main())
