"""Look at a data set before training on it: what it holds, and whether its cameras fit its images.

For example: python -m apps.inspect_data --datadir data/my_scenes
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from apps.inspection.config import InspectionConfig
from utils.config import parse_config


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0 if the data are ready to train on, 2 if something is wrong."""
    config = parse_config(InspectionConfig, argv, description=__doc__ or "")
    from apps.inspection.run import run_inspection
    from utils.console import run_and_report

    return run_and_report(lambda: run_inspection(config))


if __name__ == "__main__":
    sys.exit(main())
