"""Reconstruct photos or a video: rendered video, point cloud, mesh and camera poses.

For example: python reconstruct.py data/my_photos. Missing cameras are estimated. The same command
resumes an interrupted run.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys

from apps.reconstruction.config import ReconstructionConfig
from utils.config import command

main = command(ReconstructionConfig, "apps.reconstruction.run:run_reconstruction", __doc__)

if __name__ == "__main__":
    sys.exit(main())
