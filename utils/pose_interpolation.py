"""Smooth motion through given camera poses.

Rotations are unit quaternions ``(w, x, y, z)`` and are interpolated on their sphere: the shortest
great arc between two (Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985), and
for smooth curves through many the pyramid of Catmull-Rom splines (Barry and Goldman, "A recursive
evaluation algorithm for a class of Catmull-Rom splines", SIGGRAPH 1988) with such arcs instead of
straight lines. Knots are centripetal (Yuksel et al., 2011): no loops between near cameras.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

_DENSE = 64
"""Points per segment by which the length of a curve is measured."""
_TURN_LENGTH = 0.25
"""A turn of one radian counts as this share of the focus distance, if the centre moves less."""
_PARALLEL = 1e-6
"""Sine of the angle below which the arc between two rotations is a straight line."""

Blend = Callable[[Tensor, Tensor, Tensor], Tensor]


def quaternions(rotations: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Turn rotation matrices into unit quaternions.

    Each matrix is the eigenvector problem of Bar-Itzhack (2000): stable for every angle.
    """
    r = rotations
    zero = torch.zeros_like(r[..., 0, 0])
    rows = [
        [r[..., 0, 0] + r[..., 1, 1] + r[..., 2, 2], zero, zero, zero],
        [r[..., 2, 1] - r[..., 1, 2], r[..., 0, 0] - r[..., 1, 1] - r[..., 2, 2], zero, zero],
        [
            r[..., 0, 2] - r[..., 2, 0],
            r[..., 0, 1] + r[..., 1, 0],
            r[..., 1, 1] - r[..., 0, 0] - r[..., 2, 2],
            zero,
        ],
        [
            r[..., 1, 0] - r[..., 0, 1],
            r[..., 0, 2] + r[..., 2, 0],
            r[..., 1, 2] + r[..., 2, 1],
            r[..., 2, 2] - r[..., 0, 0] - r[..., 1, 1],
        ],
    ]
    symmetric = torch.stack([torch.stack(row, -1) for row in rows], -2)
    return torch.linalg.eigh(symmetric, UPLO="L").eigenvectors[..., -1]


def rotation_matrices(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Turn unit quaternions into rotation matrices."""
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def slerp(
    start: Float[Tensor, "*#batch 4"],
    end: Float[Tensor, "*#batch 4"],
    share: Float[Tensor, "*#batch 1"],
) -> Float[Tensor, "*batch 4"]:
    """Go the given share of the shorter way between two rotations; outside [0, 1] go beyond."""
    cosine = (start * end).sum(-1, keepdim=True)
    end = torch.where(cosine < 0, -end, end)
    angle = torch.atan2((end - start).norm(dim=-1), (end + start).norm(dim=-1))[..., None] * 2
    sine = torch.sin(angle)
    straight = sine < _PARALLEL
    sine = torch.where(straight, 1.0, sine)
    from_start = torch.where(straight, 1 - share, torch.sin((1 - share) * angle) / sine)
    from_end = torch.where(straight, share, torch.sin(share * angle) / sine)
    return torch.nn.functional.normalize(from_start * start + from_end * end, dim=-1)


def smooth_path(
    c2w: Float[Tensor, "key 4 4"], n_frames: int, focus_distance: float, closed: bool = False
) -> Float[Tensor, "frame 4 4"]:
    """Pass smoothly through poses, in their order and at constant speed.

    Speed is that of the camera's centre; where it turns in place, or much faster than it moves,
    that of the turn.

    Args:
        c2w: The poses, two or more (one stands still).
        n_frames: Poses to return. The first is the first given one; the last is the last given
            one, or, if closed, the one before the first.
        focus_distance: Distance of what the cameras look at; relates turns to movement.
        closed: Return to the first pose, so that the frames can be repeated.
    """
    if len(c2w) == 1 or n_frames == 1:
        return c2w[:1].repeat(n_frames, 1, 1)
    keys = c2w.double()
    if closed:
        keys = torch.cat([keys, keys[:1]])
    centers, turns = keys[:, :3, 3], quaternions(keys[:, :3, :3])
    spacing = _steps(centers, turns, focus_distance)
    knots = _cumulated(spacing.sqrt().clamp_min(1e-3 * max(spacing.max().item(), 1e-9) ** 0.5))
    dense = _between(knots)
    lengths = _cumulated(
        _steps(
            _spline(centers, knots, dense, torch.lerp, closed),
            _spline(turns, knots, dense, slerp, closed),
            focus_distance,
        )
    )
    wanted = torch.linspace(0, lengths[-1].item(), n_frames + closed, dtype=torch.float64)
    times = _interpolate(wanted[:n_frames], lengths, dense)
    path = torch.eye(4, dtype=torch.float64).repeat(n_frames, 1, 1)
    path[:, :3, 3] = _spline(centers, knots, times, torch.lerp, closed)
    path[:, :3, :3] = rotation_matrices(_spline(turns, knots, times, slerp, closed))
    return path.to(c2w.dtype)


def _steps(
    centers: Float[Tensor, "pose 3"], turns: Float[Tensor, "pose 4"], focus_distance: float
) -> Float[Tensor, " step"]:
    moved = centers.diff(dim=0).norm(dim=-1)
    cosines = (turns[1:] * turns[:-1]).sum(-1).abs().clamp(max=1)
    return torch.maximum(moved, 2 * torch.acos(cosines) * focus_distance * _TURN_LENGTH)


def _cumulated(steps: Float[Tensor, " step"]) -> Float[Tensor, " pose"]:
    return torch.cat([steps.new_zeros(1), steps.cumsum(0)])


def _between(knots: Float[Tensor, " key"]) -> Float[Tensor, " dense"]:
    shares = torch.arange(_DENSE, dtype=knots.dtype) / _DENSE
    return torch.cat([(knots[:-1, None] + shares * knots.diff()[:, None]).flatten(), knots[-1:]])


def _interpolate(
    wanted: Float[Tensor, " frame"], x: Float[Tensor, " dense"], y: Float[Tensor, " dense"]
) -> Float[Tensor, " frame"]:
    """Read the rising, piecewise linear function through (x, y)."""
    right = torch.searchsorted(x, wanted).clamp(1, len(x) - 1)
    width = (x[right] - x[right - 1]).clamp_min(1e-12)
    share = ((wanted - x[right - 1]) / width).clamp(0, 1)
    return torch.lerp(y[right - 1], y[right], share)


def _spline(
    values: Float[Tensor, "key channel"],
    knots: Float[Tensor, " key"],
    times: Float[Tensor, " time"],
    blend: Blend,
    closed: bool,
) -> Float[Tensor, "time channel"]:
    """Evaluate the Catmull-Rom spline through values at knots."""
    values, knots = _with_neighbours(values, knots, blend, closed)
    place = torch.searchsorted(knots, times, right=True).clamp(2, len(knots) - 2)
    p = [values[place + offset] for offset in (-2, -1, 0, 1)]
    t = [knots[place + offset, None] for offset in (-2, -1, 0, 1)]
    now = times[:, None]

    def between(a: Tensor, b: Tensor, first: int, last: int) -> Tensor:
        return blend(a, b, (now - t[first]) / (t[last] - t[first]))

    a = [between(p[i], p[i + 1], i, i + 1) for i in range(3)]
    b = [between(a[i], a[i + 1], i, i + 2) for i in range(2)]
    return between(b[0], b[1], 1, 2)


def _with_neighbours(
    values: Float[Tensor, "key channel"], knots: Float[Tensor, " key"], blend: Blend, closed: bool
) -> tuple[Float[Tensor, "key2 channel"], Float[Tensor, " key2"]]:
    """Add a value before the first and after the last: round the loop, or straight on."""
    if closed:
        before, after = values[-2:-1], values[1:2]
        first, last = knots[-1] - knots[-2], knots[1] - knots[0]
    else:
        beyond = values.new_full((1, 1), 2.0)
        before, after = blend(values[1:2], values[:1], beyond), values[-2:-1]
        after = blend(after, values[-1:], beyond)
        first, last = knots[1] - knots[0], knots[-1] - knots[-2]
    ends = [knots[:1] - first, knots, knots[-1:] + last]
    return torch.cat([before, values, after]), torch.cat(ends)
