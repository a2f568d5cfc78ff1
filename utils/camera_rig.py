"""What a set of cameras says about its scene: where it is, what is up, which views are near."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from utils.cameras import Cameras

_FALLBACK_WEIGHT = 1e-2
"""Of the fallback point, which decides where axes are nearly parallel."""
_MEAN_UP_WEIGHT = 0.003
"""Of the mean up direction, which decides where cameras side by side leave the horizon open."""
_FULL_CIRCLE_GAP = math.radians(100)
"""Cameras surround a point if no gap between their azimuths is as wide as this."""

SourceIndices = tuple[tuple[int, ...], ...]
"""For each of some cameras, which source views to read."""


@dataclass(frozen=True)
class CameraRig:
    """A set of cameras seen from the point that they look at."""

    focus: Float[Tensor, " 3"]
    """The point that they look at."""
    up: Float[Tensor, " 3"]
    """Away from the ground, unit."""
    distance: float
    """Median distance of the cameras from the focus."""
    azimuths: Float[Tensor, " view"]
    """Of the cameras seen from the focus, around ``up``, relative to their middle."""
    elevations: Float[Tensor, " view"]
    level_axes: Float[Tensor, "2 3"]
    """Unit directions: from the focus to the middle of the cameras, and across."""
    surrounds: bool
    """The cameras stand all around the focus."""


def describe_rig(cameras: Cameras, near_far: Float[Tensor, " 2"]) -> CameraRig:
    """Find what cameras look at, what is up, and from which directions they look."""
    focus, up = focus_point(cameras, near_far), up_direction(cameras)
    offsets = cameras.centers.double() - focus
    heights = offsets @ up
    level = offsets - heights[:, None] * up
    axis = cameras.c2w[:, :3, 2].double().mean(0)
    candidates = torch.stack([level.mean(0), -axis, *torch.eye(3).double()])
    levels = candidates - (candidates @ up)[:, None] * up
    usable = levels.norm(dim=-1) > 1e-6 * (1 + candidates.norm(dim=-1))
    middle = normalize(levels[usable][0], dim=0)
    level_axes = torch.stack([middle, torch.linalg.cross(up, middle)])
    x, y = (level @ level_axes.T).unbind(-1)
    azimuths = torch.atan2(y, x)
    ordered = azimuths.sort().values
    gaps = torch.cat([ordered, ordered[:1] + 2 * math.pi]).diff()
    return CameraRig(
        focus=focus,
        up=up,
        distance=offsets.norm(dim=-1).median().item(),
        azimuths=azimuths,
        elevations=torch.atan2(heights, level.norm(dim=-1)),
        level_axes=level_axes,
        surrounds=bool(gaps.max() < _FULL_CIRCLE_GAP),
    )


def nearest_point_to_axes(
    centers: Float[Tensor, "view 3"],
    axes: Float[Tensor, "view 3"],
    fallback: Float[Tensor, " 3"] | None = None,
) -> Float[Tensor, " 3"]:
    """Return the point nearest to all lines ``centers + t * axes`` (unit), in least squares.

    Where all axes are parallel a ``fallback`` point, to be near to as well, is needed.
    """
    identity = torch.eye(3).to(axes)
    across = identity - axes[:, :, None] * axes[:, None, :]
    matrix, offset = across.mean(0), (across @ centers[:, :, None]).mean(0)[:, 0]
    if fallback is not None:
        matrix, offset = matrix + _FALLBACK_WEIGHT * identity, offset + _FALLBACK_WEIGHT * fallback
    return torch.linalg.solve(matrix, offset)


def focus_point(cameras: Cameras, near_far: Float[Tensor, " 2"]) -> Float[Tensor, " 3"]:
    """Return the point that cameras look at: nearest to all optical axes.

    Where the axes are parallel it is ahead of the mean camera, at the harmonic middle of the range.
    """
    centers, axes = cameras.centers.double(), cameras.c2w[:, :3, 2].double()
    near, far = near_far.double().tolist()
    ahead = (centers + axes * (2 / (1 / near + 1 / far))).mean(0)
    return nearest_point_to_axes(centers, axes, ahead)


def focus_distance(cameras: Cameras, near_far: Float[Tensor, " 2"]) -> float:
    """Return the median distance of cameras from the point that they look at."""
    focus = focus_point(cameras, near_far)
    return (cameras.centers.double() - focus).norm(dim=-1).median().item()


def up_direction(cameras: Cameras) -> Float[Tensor, " 3"]:
    """Return the direction away from the ground, for cameras that are held level.

    It is most nearly perpendicular to the x axes of all cameras; where they stand side by side and
    leave it open, their mean up direction decides.
    """
    right, mean_up = cameras.c2w[:, :3, 0].double(), -cameras.c2w[:, :3, 1].double().mean(0)
    mean_up = normalize(mean_up, dim=0)
    away = torch.eye(3, dtype=torch.float64) - mean_up[:, None] * mean_up
    spread = (right[:, :, None] * right[:, None, :]).mean(0)
    up = torch.linalg.eigh(spread + _MEAN_UP_WEIGHT * away).eigenvectors[:, 0]
    return up * torch.sign(up @ mean_up)


def look_at(
    centers: Float[Tensor, "frame 3"], target: Float[Tensor, " 3"], up: Float[Tensor, " 3"]
) -> Float[Tensor, "frame 4 4"]:
    """Return upright camera-to-world matrices that look from centres at a target."""
    forward = normalize(target - centers, dim=-1)
    right = normalize(torch.linalg.cross(forward, up.expand_as(forward)), dim=-1)
    c2w = torch.eye(4, dtype=centers.dtype).repeat(len(centers), 1, 1)
    c2w[:, :3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], -1)
    c2w[:, :3, 3] = centers
    return c2w


def centers_and_targets(cameras: Cameras, distance: float) -> Float[Tensor, "camera 2 3"]:
    """Return each camera's centre and the point on its axis at a distance, in double precision."""
    centers = cameras.centers.double()
    return torch.stack([centers, centers + distance * cameras.c2w[:, :3, 2].double()], 1)


def source_distances(
    cameras: Cameras, sources: Cameras, near_far: Float[Tensor, " 2"]
) -> Float[Tensor, "camera source"]:
    """Return how far each camera's centre is from each source's, plus how far the points ahead are.

    These points are as far away as what the sources look at.
    """
    distance = focus_distance(sources, near_far)
    pairs = centers_and_targets(cameras, distance)[:, None] - centers_and_targets(sources, distance)
    return pairs.norm(dim=-1).sum(-1)


def nearest_sources(
    cameras: Cameras, sources: Cameras, near_far: Float[Tensor, " 2"], count: int
) -> SourceIndices:
    """Return the indices of each camera's nearest sources, in rising order."""
    order = source_distances(cameras, sources, near_far).argsort(dim=1, stable=True)
    return tuple(tuple(sorted(row)) for row in order[:, :count].tolist())
