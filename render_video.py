"""Render a video of a scene along a camera path.

For example: python render_video.py --datadir data/nerf_llff_data/fern --path spiral --depth --out
results/fern.mp4. Without --datadir a procedural world is rendered. The same command resumes an
interrupted run.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys

from apps.rendering.config import VideoConfig
from utils.config import command

main = command(VideoConfig, "apps.rendering.video:run_video", __doc__)

if __name__ == "__main__":
    sys.exit(main())
