"""Where cameras stand: caps, grids and walks around a subject.

Positions follow a low-discrepancy sequence: any few views spread well, and most lie within the hull
of the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from datasets.procedural.renderer.textures import Number
from datasets.procedural.worlds.scene import Rng, Vector

Pose = Float[np.ndarray, "4 4"]

_GOLDEN = (0.7548776662466927, 0.5698402909980532)
"""The two-dimensional golden ratio: steps of the R2 sequence (Roberts, 2018)."""
_DEPTH_SPREAD = 0.05
"""Half range of the distance, relative."""


@dataclass(frozen=True)
class CameraPath:
    """A family of camera poses around a subject; angles in radians."""

    subject: Vector
    distance: Number
    azimuth: Number
    elevation: Number
    """Azimuth and elevation of the path's middle, seen from the subject."""
    spread: tuple[Number, Number]
    """Half range: of azimuth and elevation, or of steps aside and up in units of distance."""
    field_of_view: Number
    """Along the wider side."""
    motion: str = "cap"
    """'cap' turns about the subject, 'grid' shifts in a plane, 'walk' also comes nearer."""
    converge: Number = 1.0
    """1: look at the subject, 0: look straight ahead."""
    aim: Number = 0.04
    """Spread of the aim, in units of distance."""
    roll: Number = 0.02
    center_shift: tuple[Number, Number] = (0.0, 0.0)
    """Offset of the principal point, in image sizes."""

    def intrinsics(self, size: tuple[int, int]) -> Float[np.ndarray, "3 3"]:
        """Build the intrinsics for an image of (height, width)."""
        height, width = size
        focal = 0.5 * max(size) / math.tan(0.5 * self.field_of_view)
        x, y = self.center_shift
        return np.array([[focal, 0, width * (0.5 + x)], [0, focal, height * (0.5 + y)], [0, 0, 1]])

    def pose(self, rng: Rng, view: int, offset: tuple[Number, Number], shrink: Number) -> Pose:
        """Place view ``view``; ``shrink`` < 1 draws it towards the middle of the path.

        ``offset`` shifts the low-discrepancy sequence: one value per scene.
        """
        steps = zip(offset, _GOLDEN, strict=True)
        across, up = (2 * math.modf(start + view * step)[0] - 1 for start, step in steps)
        across, up = shrink * (across + rng.uniform(-0.08, 0.08)), shrink * up
        distance = self.distance * (1 + _DEPTH_SPREAD * rng.uniform(-1, 1))
        azimuth, elevation = self.azimuth, self.elevation
        side = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
        if self.motion == "cap":
            azimuth, elevation = azimuth + self.spread[0] * across, elevation + self.spread[1] * up
            across, up = 0.0, 0.0
        elif self.motion == "walk":
            distance *= 1 - 0.35 * (0.5 + 0.5 * across) * min(self.spread[0] * 2, 1)
        aside, above = self.spread[0] * across, self.spread[1] * up
        shift = self.distance * (aside * side + above * np.array([0.0, 0.0, 1.0]))
        position = np.array(self.subject) + distance * towards(azimuth, elevation) + shift
        wander = [rng.normal(self.aim * self.distance) for _ in range(3)]
        target = np.array(self.subject) + (1 - self.converge) * shift + wander
        return look_at(position, target, rng.normal(self.roll))


def towards(azimuth: Number, elevation: Number) -> Float[np.ndarray, 3]:
    """Return the unit vector in a direction."""
    flat = math.cos(elevation)
    return np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)])


def look_at(position: np.ndarray, target: np.ndarray, roll: Number = 0.0) -> Pose:
    """Return the camera-to-world matrix of a camera whose image is upright up to ``roll``."""
    forward = target - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    norm = np.linalg.norm(right)
    right = right / norm if norm > 1e-6 else np.array([1.0, 0.0, 0.0])
    down = np.cross(forward, right)
    cosine, sine = math.cos(roll), math.sin(roll)
    x, y = cosine * right + sine * down, cosine * down - sine * right
    return np.vstack([np.column_stack([x, y, forward, position]), [0.0, 0.0, 0.0, 1.0]])


_DTU_ROWS = (5, 6, 8, 9, 10, 11)
"""The robot's rows from top to bottom; each runs against the one before."""
DTU_VIEWS = sum(_DTU_ROWS)
_DTU_DISTANCE, _DTU_SUBJECT = 3.04, np.array([0.0, 0.0, 0.32])
"""The cameras' distance from the subject's centre; times 200 it is DTU's 608 mm."""
DTU_FIELD_OF_VIEW = 2 * math.atan(0.5 / 2.26)
"""The focal length of DTU's cropped images is 1446 pixels for a width of 640."""


def dtu_poses(num_views: int) -> Float[np.ndarray, "view 4 4"]:
    """Return poses of a cap like that of DTU's robot: 49 views, six rows, 608 mm away."""
    poses = []
    for row, count in enumerate(_DTU_ROWS):
        elevation = math.radians(66 - 10.5 * row)
        step = math.radians(10.5) / max(math.cos(elevation), 0.55) * (-1 if row % 2 else 1)
        for place in range(count):
            azimuth = step * (place - (count - 1) / 2) - math.pi / 2
            position = _DTU_SUBJECT + _DTU_DISTANCE * towards(azimuth, elevation)
            poses.append(look_at(position, _DTU_SUBJECT))
    return np.stack(poses[:num_views])
