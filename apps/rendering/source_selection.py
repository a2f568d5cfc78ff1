"""Which source views are near a camera: not far from it, and looking at the same place."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from utils.cameras import Cameras
from utils.surroundings import focus_point

Places = tuple[tuple[int, ...], ...]
"""For each of some cameras, which source views to read."""


def source_distances(
    cameras: Cameras, sources: Cameras, near_far: Float[Tensor, " 2"]
) -> Float[Tensor, "camera source"]:
    """Return how far each camera is from each source: apart, and looking elsewhere.

    That is the distance of the centres plus that of the points ahead, as far away as what the
    sources look at.
    """
    ahead = focus_distance(sources, near_far)

    def places(cameras: Cameras) -> Float[Tensor, "camera 1 2 3"]:
        centers = cameras.centers.double()
        looked_at = centers + ahead * cameras.c2w[:, :3, 2].double()
        return torch.stack([centers, looked_at], 1)[:, None]

    return (places(cameras) - places(sources).transpose(0, 1)).norm(dim=-1).sum(-1)


def nearest_sources(
    cameras: Cameras, sources: Cameras, near_far: Float[Tensor, " 2"], count: int
) -> Places:
    """Return, for each camera, the places of its nearest sources, in rising order.

    Of equally near ones the first counts.
    """
    order = source_distances(cameras, sources, near_far).argsort(dim=1, stable=True)
    return tuple(tuple(sorted(row)) for row in order[:, :count].tolist())


def focus_distance(sources: Cameras, near_far: Float[Tensor, " 2"]) -> float:
    """Return how far away what the sources look at is, the median."""
    focus = focus_point(sources, near_far)
    return (sources.centers.double() - focus).norm(dim=-1).median().item()


def neighbour_distance(sources: Cameras, near_far: Float[Tensor, " 2"]) -> float:
    """Return how far apart neighbouring sources usually are; nothing is far from a single one."""
    if len(sources.c2w) == 1:
        return float("inf")
    apart = source_distances(sources, sources, near_far)
    return apart.kthvalue(2, dim=1).values.median().item()
