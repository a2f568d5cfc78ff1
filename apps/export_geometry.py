"""Export a scene's geometry: a coloured point cloud and optionally a mesh, splats or arrays.

For example: python -m apps.export_geometry --datadir data/dtu/scan65 --out results/points.ply
--mesh results/mesh.glb. Depth maps are rendered from the source cameras and fused; points on which
several of them agree are kept.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys

from apps.rendering.config import GeometryConfig
from utils.config import command

main = command(GeometryConfig, "apps.rendering.geometry_export:run_export", __doc__)

if __name__ == "__main__":
    sys.exit(main())
