"""Look at a scene in the browser: drag the camera, and see what the model renders there.

For example: python view.py --datadir data/nerf_llff_data/fern, then open the address that it
prints. Without --datadir it shows a procedural world.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from apps.rendering.config import ViewerConfig
from utils.config import parse_config


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, or 2 for bad input."""
    config = parse_config(ViewerConfig, argv, description=__doc__ or "")
    from apps.rendering.viewer import run_viewer
    from utils.errors import run_and_report

    return run_and_report(lambda: run_viewer(config))


if __name__ == "__main__":
    sys.exit(main())
