"""Where things stand: frames with a heading, in a world whose z axis points up."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from datasets.procedural.dice import Number

Vector = tuple[Number, Number, Number]
Rotation = tuple[Vector, Vector, Vector]
"""Rows of a matrix that turns local into world coordinates."""

UPRIGHT: Rotation = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def turned(yaw: Number = 0.0, pitch: Number = 0.0, roll: Number = 0.0) -> Rotation:
    """Roll about x, then pitch about y, then yaw about z (the vertical)."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    cr, sr = math.cos(roll), math.sin(roll)
    return (
        (cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr),
        (sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr),
        (-sp, cp * sr, cp * cr),
    )


def along(direction: Vector, roll: Number = 0.0) -> Rotation:
    """Turn the local x axis into a direction; the local z axis stays as upright as it can."""
    yaw = math.atan2(direction[1], direction[0])
    pitch = -math.atan2(direction[2], math.hypot(direction[0], direction[1]))
    return turned(yaw, pitch, roll)


def product(left: Rotation, right: Rotation) -> Rotation:
    """Multiply two rotations."""
    columns = tuple(zip(*right, strict=True))
    return tuple(  # pyright: ignore[reportReturnType]
        tuple(sum(a * b for a, b in zip(row, column, strict=True)) for column in columns)
        for row in left
    )


@dataclass(frozen=True)
class Frame:
    """A spot to stand on: things are built in its coordinates."""

    origin: Vector = (0.0, 0.0, 0.0)
    yaw: Number = 0.0
    scale: Number = 1.0

    def to_world(self, point: Vector) -> Vector:
        """Map a point of this frame into the world."""
        cosine, sine = math.cos(self.yaw), math.sin(self.yaw)
        x, y, z = (self.scale * value for value in point)
        return (
            self.origin[0] + cosine * x - sine * y,
            self.origin[1] + sine * x + cosine * y,
            self.origin[2] + z,
        )

    def moved(self, point: Vector, yaw: Number = 0.0, scale: Number = 1.0) -> Frame:
        """Return the frame at a point of this one, turned further and scaled further."""
        return replace(
            self, origin=self.to_world(point), yaw=self.yaw + yaw, scale=self.scale * scale
        )
