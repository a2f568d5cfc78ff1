"""Camera paths: caps, grids and walks around a subject.

Positions follow a low-discrepancy sequence, so that any number of views is well spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from datasets.procedural.renderer.textures import Number
from datasets.procedural.worlds.scene import Rng, Vector

Pose = Float[np.ndarray, "4 4"]

_R2_STEPS = (0.7548776662466927, 0.5698402909980532)
"""Steps of the R2 low-discrepancy sequence (Roberts, 2018)."""
_DEPTH_SPREAD = 0.05
"""Relative half range of the distance."""


@dataclass(frozen=True)
class CameraPath:
    """Distribution of camera poses around a subject; angles in radians."""

    subject: Vector
    distance: Number
    azimuth: Number
    elevation: Number
    """Azimuth and elevation of the middle of the path, from the subject."""
    spread: tuple[Number, Number]
    """Half ranges of azimuth and elevation (cap), or of horizontal and vertical shifts in units of
    distance."""
    field_of_view: Number
    """Of the longer image side."""
    motion: str = "cap"
    """'cap' rotates about the subject, 'grid' shifts in a plane, 'walk' also approaches."""
    converge: Number = 1.0
    """1: the optical axes meet at the subject, 0: they are parallel."""
    aim: Number = 0.04
    """Standard deviation of the point looked at, in units of distance."""
    roll: Number = 0.02
    center_shift: tuple[Number, Number] = (0.0, 0.0)
    """Offset of the principal point relative to the image size."""

    def intrinsics(self, size: tuple[int, int]) -> Float[np.ndarray, "3 3"]:
        """Return the intrinsics for an image of (height, width)."""
        height, width = size
        focal = 0.5 * max(size) / math.tan(0.5 * self.field_of_view)
        x, y = self.center_shift
        return np.array([[focal, 0, width * (0.5 + x)], [0, focal, height * (0.5 + y)], [0, 0, 1]])

    def pose(self, rng: Rng, view: int, offset: tuple[Number, Number], shrink: Number) -> Pose:
        """Draw the pose of a view; ``shrink`` below 1 moves it towards the middle of the path.

        ``offset`` is the start of the low-discrepancy sequence in this scene.
        """
        steps = zip(offset, _R2_STEPS, strict=True)
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
        position = np.array(self.subject) + distance * direction_to(azimuth, elevation) + shift
        jitter = [rng.normal(self.aim * self.distance) for _ in range(3)]
        target = np.array(self.subject) + (1 - self.converge) * shift + jitter
        return look_at(position, target, rng.normal(self.roll))


def direction_to(azimuth: Number, elevation: Number) -> Float[np.ndarray, 3]:
    """Return the unit vector of a direction."""
    flat = math.cos(elevation)
    return np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)])


def look_at(position: np.ndarray, target: np.ndarray, roll: Number = 0.0) -> Pose:
    """Return the camera-to-world matrix of a camera that is upright up to ``roll``."""
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
"""Views in each row of the robot from top to bottom; alternate rows run backwards."""
DTU_VIEWS = sum(_DTU_ROWS)
_DTU_DISTANCE, _DTU_SUBJECT = 3.04, np.array([0.0, 0.0, 0.32])
"""Distance of the cameras from the subject's centre: DTU's 608 mm divided by 200."""
DTU_FIELD_OF_VIEW = 2 * math.atan(0.5 / 2.26)
"""DTU's cropped images have a focal length of 1446 pixels for a width of 640."""


def dtu_poses(num_views: int) -> Float[np.ndarray, "view 4 4"]:
    """Return poses like those of DTU's robot: 49 views in six rows, at a fixed distance."""
    poses = []
    for row, count in enumerate(_DTU_ROWS):
        elevation = math.radians(66 - 10.5 * row)
        step = math.radians(10.5) / max(math.cos(elevation), 0.55) * (-1 if row % 2 else 1)
        for column in range(count):
            azimuth = step * (column - (count - 1) / 2) - math.pi / 2
            position = _DTU_SUBJECT + _DTU_DISTANCE * direction_to(azimuth, elevation)
            poses.append(look_at(position, _DTU_SUBJECT))
    return np.stack(poses[:num_views])
