"""View a scene in the browser: the model renders the view of a camera that is moved interactively.

For example: python view.py --datadir data/nerf_llff_data/fern, then open the printed address.
Without --datadir a procedural world is shown.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys

from apps.rendering.config import ViewerConfig
from utils.config import command

main = command(ViewerConfig, "apps.rendering.viewer:run_viewer", __doc__)

if __name__ == "__main__":
    sys.exit(main())
