"""What cameras say about the place that they photographed: where they look, and what is up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from utils.cameras import Cameras

_TOWARDS_MIDDLE = 1e-2
"""Weight of the middle of the range where axes are too parallel to say what they look at."""
_TOWARDS_MEAN_UP = 0.003
"""Weight of the mean up direction where cameras side by side cannot say what is level."""
_FULL_CIRCLE_GAP = math.radians(100)
"""Cameras surround a place if nowhere around it a gap as wide as this is left."""


@dataclass(frozen=True)
class Surroundings:
    """What a set of cameras says about where to move."""

    focus: Float[Tensor, " 3"]
    """The point that they look at."""
    up: Float[Tensor, " 3"]
    """Away from the ground, unit."""
    distance: float
    """Median distance of the cameras from the focus."""
    azimuths: Float[Tensor, " view"]
    """Of the cameras seen from the focus, around ``up``, relative to their middle."""
    elevations: Float[Tensor, " view"]
    middle: Float[Tensor, " 3"]
    """Level direction from the focus to the middle of the cameras, unit."""
    surrounded: bool
    """The cameras stand all around the focus."""


def survey(cameras: Cameras, near_far: Float[Tensor, " 2"]) -> Surroundings:
    """Find what cameras look at, what is up, and from which directions they look."""
    centers, c2w = cameras.centers.double(), cameras.c2w.double()
    focus, up = focus_point(cameras, near_far), upward(cameras)
    offsets = centers - focus
    heights = offsets @ up
    level = offsets - heights[:, None] * up
    middle = _level_direction(level.mean(0), c2w[:, :3, 2].mean(0), up)
    side = torch.linalg.cross(up, middle)
    azimuths = torch.atan2(level @ side, level @ middle)
    ordered = azimuths.sort().values
    gaps = torch.cat([ordered, ordered[:1] + 2 * math.pi]).diff()
    surrounded = bool(gaps.max() < _FULL_CIRCLE_GAP)
    return Surroundings(
        focus=focus,
        up=up,
        distance=offsets.norm(dim=-1).median().item(),
        azimuths=azimuths,
        elevations=torch.atan2(heights, level.norm(dim=-1)),
        middle=middle,
        surrounded=surrounded,
    )


def focus_point(cameras: Cameras, near_far: Float[Tensor, " 2"]) -> Float[Tensor, " 3"]:
    """Return the point nearest to all optical axes, in the sense of least squares.

    Where the axes are parallel it is the point ahead of the mean camera at the range's harmonic
    middle.
    """
    centers, axes = cameras.centers.double(), cameras.c2w[:, :3, 2].double()
    near, far = near_far.double().tolist()
    middle = (centers + axes * (2 / (1 / near + 1 / far))).mean(0)
    identity = torch.eye(3, dtype=torch.float64)
    across = identity - axes[:, :, None] * axes[:, None, :]
    offsets = (across @ centers[:, :, None]).mean(0)[:, 0] + _TOWARDS_MIDDLE * middle
    return torch.linalg.solve(across.mean(0) + _TOWARDS_MIDDLE * identity, offsets)


def upward(cameras: Cameras) -> Float[Tensor, " 3"]:
    """Return the direction away from the ground.

    People hold cameras level: up is the direction that is most nearly across the x axes of all
    cameras. Cameras side by side leave that open; then their mean up direction decides.
    """
    right, mean_up = cameras.c2w[:, :3, 0].double(), -cameras.c2w[:, :3, 1].double().mean(0)
    mean_up = torch.nn.functional.normalize(mean_up, dim=0)
    identity = torch.eye(3, dtype=torch.float64)
    away = identity - mean_up[:, None] * mean_up
    spread = (right[:, :, None] * right[:, None, :]).mean(0)
    up = torch.linalg.eigh(spread + _TOWARDS_MEAN_UP * away).eigenvectors[:, 0]
    return up * torch.sign(up @ mean_up)


def look_at(
    centers: Float[Tensor, "frame 3"], target: Float[Tensor, " 3"], up: Float[Tensor, " 3"]
) -> Float[Tensor, "frame 4 4"]:
    """Return upright camera-to-world matrices that look from centres at a target."""
    normalize = torch.nn.functional.normalize
    forward = normalize(target - centers, dim=-1)
    right = normalize(torch.linalg.cross(forward, up.expand_as(forward)), dim=-1)
    c2w = torch.eye(4, dtype=centers.dtype).repeat(len(centers), 1, 1)
    c2w[:, :3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], -1)
    c2w[:, :3, 3] = centers
    return c2w


def _level_direction(
    wanted: Float[Tensor, " 3"], fallback: Float[Tensor, " 3"], up: Float[Tensor, " 3"]
) -> Float[Tensor, " 3"]:
    """Return a level unit direction, from the first of three that has one."""
    for direction in (wanted, -fallback, *torch.eye(3, dtype=up.dtype)):
        level = direction - (direction @ up) * up
        if level.norm() > 1e-6 * (1 + direction.norm()):
            return level / level.norm()
    raise AssertionError("one of the axes is not parallel to up")
