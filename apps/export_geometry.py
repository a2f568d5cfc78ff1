"""Write a scene's geometry: a coloured point cloud and, if wanted, a mesh.

For example: python -m apps.export_geometry --datadir data/dtu/scan65 --out results/points.ply
--mesh results/mesh.glb

Depths are rendered from the source cameras; what several of them agree on is
kept.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from apps.rendering.config import GeometryConfig
from utils.config import parse_config


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, or 2 for bad input."""
    config = parse_config(GeometryConfig, argv, description=__doc__ or "")
    from apps.rendering.geometry import run_export
    from utils.errors import run_and_report

    return run_and_report(lambda: run_export(config))


if __name__ == "__main__":
    sys.exit(main())
