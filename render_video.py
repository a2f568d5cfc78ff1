"""Render a video of a scene along a camera path, between and around its photographs.

For example: python render_video.py --datadir data/nerf_llff_data/fern --path spiral --depth --out
results/fern.mp4. Without --datadir it shows a procedural world. An interrupted run keeps its
frames; the same command goes on.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from apps.rendering.config import VideoConfig
from utils.config import parse_config


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, 2 for bad input, or 130 if it was stopped with Ctrl-C."""
    config = parse_config(VideoConfig, argv, description=__doc__ or "")
    from apps.rendering.video import run_video
    from utils.errors import run_and_report

    try:
        return run_and_report(lambda: run_video(config))
    except KeyboardInterrupt as stop:
        logging.getLogger(__name__).warning("%s", stop)
        return 130


if __name__ == "__main__":
    sys.exit(main())
