"""Where photographers stand: caps, grids, orbits and walks around a subject.

View v of a scene is a function of (seed, scene, v) alone: it does not depend on how many views
are asked for. Positions follow a low-discrepancy sequence, so that any few views spread well and
most lie within the hull of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.procedural.dice import Dice, Number
from datasets.procedural.placement import Vector

_GOLDEN_1, _GOLDEN_2 = 0.7548776662466927, 0.5698402909980532
"""The two-dimensional golden ratio: steps of the R2 sequence (Roberts, 2018)."""


@dataclass(frozen=True)
class CameraPath:
    """A family of camera poses around a subject; angles in radians."""

    subject: Vector
    distance: Number
    azimuth: Number
    """Direction from the subject to the middle of the path."""
    elevation: Number
    spread: tuple[Number, Number]
    """Half range: of azimuth and elevation, or of steps aside and up in units of distance."""
    kind: str = "cap"
    """'cap' turns about the subject, 'grid' shifts in a plane, 'walk' also comes nearer."""
    depth_spread: Number = 0.05
    """Half range of the distance, relative."""
    converge: Number = 1.0
    """1: look at the subject, 0: look straight ahead."""
    field_of_view: Number = 0.9
    """Along the wider side."""
    aim: Number = 0.04
    """Spread of the aim, in units of distance."""
    roll: Number = 0.02
    center_shift: tuple[Number, Number] = (0.0, 0.0)
    """Offset of the principal point, in image sizes."""


def intrinsics(path: CameraPath, size: tuple[int, int]) -> np.ndarray:
    """Build the 3x3 intrinsics for an image of (height, width)."""
    height, width = size
    focal = 0.5 * max(size) / math.tan(0.5 * path.field_of_view)
    return np.array(
        [
            [focal, 0, width * (0.5 + path.center_shift[0])],
            [0, focal, height * (0.5 + path.center_shift[1])],
            [0, 0, 1],
        ]
    )


def path_pose(
    path: CameraPath, dice: Dice, view: int, offset: Vector, shrink: Number
) -> np.ndarray:
    """Place view ``view``; ``shrink`` < 1 draws it towards the middle of the path.

    ``offset`` shifts the low-discrepancy sequence: one value per scene.
    """
    across = 2 * math.modf(offset[0] + view * _GOLDEN_1)[0] - 1
    up = 2 * math.modf(offset[1] + view * _GOLDEN_2)[0] - 1
    across, up = shrink * (across + dice.uniform(-0.08, 0.08)), shrink * up
    distance = path.distance * (1 + path.depth_spread * dice.uniform(-1, 1))
    azimuth, elevation = path.azimuth, path.elevation
    side = (-math.sin(azimuth), math.cos(azimuth))
    if path.kind == "cap":
        azimuth, elevation = azimuth + path.spread[0] * across, elevation + path.spread[1] * up
        across, up = 0.0, 0.0
    elif path.kind == "walk":
        distance *= 1 - 0.35 * (0.5 + 0.5 * across) * min(path.spread[0] * 2, 1)
    flat = math.cos(elevation) * distance
    shift = path.distance * path.spread[0] * across
    lift = path.distance * path.spread[1] * up
    position = np.array(
        [
            path.subject[0] + math.cos(azimuth) * flat + side[0] * shift,
            path.subject[1] + math.sin(azimuth) * flat + side[1] * shift,
            path.subject[2] + math.sin(elevation) * distance + lift,
        ]
    )
    ahead = 1 - path.converge
    wander = path.aim * path.distance
    target = np.array(path.subject) + [
        ahead * side[0] * shift + dice.normal(wander),
        ahead * side[1] * shift + dice.normal(wander),
        ahead * lift + dice.normal(wander),
    ]
    return look_at(position, target, dice.normal(path.roll))


def look_at(position: np.ndarray, target: np.ndarray, roll: Number) -> np.ndarray:
    """Return the camera-to-world matrix of a camera whose image is upright up to ``roll``."""
    forward = target - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    norm = np.linalg.norm(right)
    right = right / norm if norm > 1e-6 else np.array([1.0, 0.0, 0.0])
    down = np.cross(forward, right)
    cosine, sine = math.cos(roll), math.sin(roll)
    c2w = np.eye(4)
    c2w[:3, 0] = cosine * right + sine * down
    c2w[:3, 1] = cosine * down - sine * right
    c2w[:3, 2] = forward
    c2w[:3, 3] = position
    return c2w


_DTU_ROWS = (5, 6, 8, 9, 10, 11)
"""The robot's rows from top to bottom; it runs through them like a plough."""
DTU_DISTANCE = 3.04
"""Distance from the subject's centre; times 200 it is DTU's 608 mm."""
DTU_SUBJECT: Vector = (0.0, 0.0, 0.32)


def dtu_rig(views: Sequence[int]) -> np.ndarray:
    """Return poses of a cap like that of DTU's robot: 49 views, six rows, 608 mm away."""
    poses = []
    for row, count in enumerate(_DTU_ROWS):
        elevation = math.radians(66 - 10.5 * row)
        order = range(count) if row % 2 == 0 else reversed(range(count))
        for place in order:
            azimuth = math.radians(10.5 * (place - (count - 1) / 2)) / max(
                math.cos(elevation), 0.55
            )
            flat = DTU_DISTANCE * math.cos(elevation)
            position = np.array(DTU_SUBJECT) + [
                math.cos(azimuth - math.pi / 2) * flat,
                math.sin(azimuth - math.pi / 2) * flat,
                DTU_DISTANCE * math.sin(elevation),
            ]
            poses.append(look_at(position, np.array(DTU_SUBJECT), 0.0))
    return np.stack([poses[view] for view in views])


DTU_VIEWS = sum(_DTU_ROWS)
