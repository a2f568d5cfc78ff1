"""Pixels of a rendering whose surface the source views see."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from utils.cameras import Cameras, pixel_grid, project, unproject, view_grid

_MIN_SOURCES = 2
"""Sources that must see a point: one alone does not determine its depth."""


def seen_by_sources(
    depth: Float[Tensor, "height width"],
    camera: Cameras,
    sources: Cameras,
    source_size: tuple[int, int],
) -> Bool[Tensor, "height width"]:
    """Return the pixels whose rendered surface lies inside the images of at least two sources.

    ``depth`` is z-depth of ``camera`` (no batch axis); ``sources`` are ``(view,)``. Occlusion in
    the sources is ignored.
    """
    height, width = depth.shape
    points = unproject(pixel_grid(height, width, depth.device), depth.flatten(), camera)
    pixels, z = project(points, sources)
    inside = (view_grid(pixels, source_size).abs() <= 1).all(-1) & (z > 0)
    return (inside.sum(0) >= min(_MIN_SOURCES, len(z))).view(depth.shape)
