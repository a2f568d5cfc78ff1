"""Layout of a set of cameras: focus, up direction, angles around the focus, nearest views."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from utils.cameras import Cameras

_FALLBACK_WEIGHT = 1e-2
"""Weight of the fallback point, which matters where the axes are nearly parallel."""
_MEAN_UP_WEIGHT = 0.003
"""Weight of the mean up direction, which matters where all x axes are nearly parallel."""
_FULL_CIRCLE_GAP = math.radians(100)
"""Cameras surround a point if every gap between their azimuths is narrower than this."""

SourceIndices = tuple[tuple[int, ...], ...]
"""Indices of the source views of each camera."""


@dataclass(frozen=True)
class CameraRig:
    """A set of cameras in spherical coordinates around their focus."""

    focus: Float[Tensor, " 3"]
    """The point nearest to all optical axes."""
    up: Float[Tensor, " 3"]
    """Unit vector away from the ground."""
    distance: float
    """Median distance of the cameras from the focus."""
    azimuths: Float[Tensor, " view"]
    """Angles around ``up``, relative to the first level axis."""
    elevations: Float[Tensor, " view"]
    level_axes: Float[Tensor, "2 3"]
    """Horizontal unit vectors: from the focus to the mean camera, and perpendicular to it."""
    surrounds: bool
    """Whether the cameras stand all around the focus."""


def describe_rig(cameras: Cameras, near_far: Float[Tensor, " 2"]) -> CameraRig:
    """Compute focus, up direction and spherical coordinates of a set of cameras."""
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
    """Return the least-squares point nearest to the lines ``centers + t * axes`` (unit axes).

    ``fallback`` is an additional, weakly weighted point; it is needed if all axes are parallel.
    """
    identity = torch.eye(3).to(axes)
    projectors = identity - axes[:, :, None] * axes[:, None, :]
    matrix, offset = projectors.mean(0), (projectors @ centers[:, :, None]).mean(0)[:, 0]
    if fallback is not None:
        matrix, offset = matrix + _FALLBACK_WEIGHT * identity, offset + _FALLBACK_WEIGHT * fallback
    return torch.linalg.solve(matrix, offset)


def focus_point(cameras: Cameras, near_far: Float[Tensor, " 2"]) -> Float[Tensor, " 3"]:
    """Return the point nearest to all optical axes.

    For parallel axes it lies in front of the mean camera, at the harmonic mean of near and far.
    """
    centers, axes = cameras.centers.double(), cameras.c2w[:, :3, 2].double()
    near, far = near_far.double().tolist()
    ahead = (centers + axes * (2 / (1 / near + 1 / far))).mean(0)
    return nearest_point_to_axes(centers, axes, ahead)


def focus_distance(cameras: Cameras, near_far: Float[Tensor, " 2"]) -> float:
    """Return the median distance of the cameras from their focus."""
    focus = focus_point(cameras, near_far)
    return (cameras.centers.double() - focus).norm(dim=-1).median().item()


def up_direction(cameras: Cameras) -> Float[Tensor, " 3"]:
    """Return the unit vector away from the ground, for cameras that are held level.

    It is the direction most perpendicular to all x axes, regularised by the mean up direction.
    """
    right, mean_up = cameras.c2w[:, :3, 0].double(), -cameras.c2w[:, :3, 1].double().mean(0)
    mean_up = normalize(mean_up, dim=0)
    projector = torch.eye(3, dtype=torch.float64) - mean_up[:, None] * mean_up
    covariance = (right[:, :, None] * right[:, None, :]).mean(0)
    up = torch.linalg.eigh(covariance + _MEAN_UP_WEIGHT * projector).eigenvectors[:, 0]
    return up * torch.sign(up @ mean_up)


def look_at(
    centers: Float[Tensor, "frame 3"], target: Float[Tensor, " 3"], up: Float[Tensor, " 3"]
) -> Float[Tensor, "frame 4 4"]:
    """Return upright camera-to-world matrices at ``centers`` that look at ``target``."""
    forward = normalize(target - centers, dim=-1)
    right = normalize(torch.linalg.cross(forward, up.expand_as(forward)), dim=-1)
    c2w = torch.eye(4, dtype=centers.dtype).repeat(len(centers), 1, 1)
    c2w[:, :3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], -1)
    c2w[:, :3, 3] = centers
    return c2w


def centers_and_targets(cameras: Cameras, distance: float) -> Float[Tensor, "camera 2 3"]:
    """Return each camera's centre and the point on its axis at ``distance``, in float64."""
    centers = cameras.centers.double()
    return torch.stack([centers, centers + distance * cameras.c2w[:, :3, 2].double()], 1)


def source_distances(
    cameras: Cameras, sources: Cameras, near_far: Float[Tensor, " 2"]
) -> Float[Tensor, "camera source"]:
    """Return the distance between camera and source centres plus that between points ahead.

    The points lie on the optical axes at the focus distance of the sources.
    """
    distance = focus_distance(sources, near_far)
    pairs = centers_and_targets(cameras, distance)[:, None] - centers_and_targets(sources, distance)
    return pairs.norm(dim=-1).sum(-1)


def nearest_sources(
    cameras: Cameras, sources: Cameras, near_far: Float[Tensor, " 2"], count: int
) -> SourceIndices:
    """Return the sorted indices of each camera's ``count`` nearest sources."""
    order = source_distances(cameras, sources, near_far).argsort(dim=1, stable=True)
    return tuple(tuple(sorted(row)) for row in order[:, :count].tolist())
