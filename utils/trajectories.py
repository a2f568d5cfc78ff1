"""Camera paths for videos, computed from the source cameras of a scene.

Every path stays within the convex hull of the source cameras (of their centres, or of their
directions from the focus) and looks at their focus. ``reach`` scales the path: 1 is the largest
path of its kind inside the hull.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, RotationSpline
from torch import Tensor

from utils.camera_rig import CameraRig, describe_rig, look_at
from utils.cameras import Cameras, crop_intrinsics, resize_intrinsics

_SPIRAL_TURNS = 2
_MIN_BOWL_CAMERAS = 6
"""Fewer cameras do not determine a quadratic surface."""
_HULL_DIRECTIONS = 360
_MAX_ELEVATION = math.radians(85)
_POINTS_PER_SEGMENT = 64
"""Points from which the length of a curve is computed."""
_TURN_LENGTH = 0.25
"""Length of a rotation by one radian, as a share of the focus distance."""
_MIN_STEP = 1e-3
"""Length between two identical poses, relative to the longest step."""
_OVERLAP = 8
"""Poses repeated at both ends of a closed path, so that its rotations are smooth there."""


def spiral(
    cameras: Cameras, near_far: Float[Tensor, " 2"], n_frames: int, reach: float = 1.0
) -> Float[Tensor, "frame 4 4"]:
    """Return a closed spiral in front of a scene, like LLFF's (Mildenhall et al., 2019).

    Across the mean viewing axis the path is the largest ellipse in the hull of the cameras. Along
    the axis it follows the quadratic surface fitted to them, plus an oscillation by their deviation
    from it.
    """
    rig, centers = describe_rig(cameras, near_far), cameras.centers.double()
    mean = centers.mean(0)
    frame = look_at(mean[None], rig.focus, rig.up)[0, :3, :3]
    x, y, along = ((centers - mean) @ frame).unbind(-1)
    turn = _SPIRAL_TURNS * _full_turn(n_frames)
    across = _unit_circle(turn) @ _ellipse_in_hull(torch.stack([x, y], -1)).T
    bowl, deviation = _fit_bowl(x, y, along)
    # One oscillation in all, however many turns.
    depth = _bowl_terms(*across.unbind(-1)) @ bowl + deviation * (turn / _SPIRAL_TURNS).sin()
    path = mean + reach * torch.cat([across, depth[:, None]], -1) @ frame.T
    return look_at(path, rig.focus, rig.up).to(cameras.c2w.dtype)


def orbit(
    cameras: Cameras, near_far: Float[Tensor, " 2"], n_frames: int, reach: float = 1.0
) -> Float[Tensor, "frame 4 4"]:
    """Return a closed path around the focus at the cameras' median distance and elevation.

    A full circle if the cameras surround the focus, else back and forth between the outermost.
    """
    rig, turn = describe_rig(cameras, near_far), _full_turn(n_frames)
    azimuths = turn
    if not rig.surrounds:
        low, high = _level_extent(rig.azimuths, rig.elevations)
        azimuths = (low + high) / 2 + min(reach * (high - low) / 2, math.pi) * turn.sin()
    return _on_sphere(rig, azimuths, rig.elevations.median().expand(n_frames)).to(cameras.c2w.dtype)


def ellipse(
    cameras: Cameras, near_far: Float[Tensor, " 2"], n_frames: int, reach: float = 1.0
) -> Float[Tensor, "frame 4 4"]:
    """Return a closed elliptic path around the focus with varying height.

    If the cameras surround the focus, the ellipse has their extents and heights, as in mip-NeRF 360
    (Barron et al., CVPR 2022). Else it is an ellipse in azimuth and elevation inside their hull.
    """
    rig, turn = describe_rig(cameras, near_far), _full_turn(n_frames)
    if not rig.surrounds:
        directions = torch.stack([rig.azimuths, rig.elevations], -1)
        mean = directions.mean(0)
        path = mean + reach * _unit_circle(turn) @ _ellipse_in_hull(directions - mean).T
        return _on_sphere(rig, *path.unbind(-1)).to(cameras.c2w.dtype)
    offsets = cameras.centers.double() - rig.focus
    level = offsets @ rig.level_axes.T
    extents = level.abs().amax(0)
    radii = reach * level.norm(dim=-1).median() * 2 * extents / extents.sum()
    low, high = (offsets @ rig.up).quantile(torch.tensor([0.25, 0.75], dtype=torch.float64))
    heights = torch.lerp(low, high, 0.5 + 0.5 * (2 * turn).sin())
    centers = rig.focus + (radii * _unit_circle(turn)) @ rig.level_axes + heights[:, None] * rig.up
    return look_at(centers, rig.focus, rig.up).to(cameras.c2w.dtype)


def smooth_path(
    c2w: Float[Tensor, "key 4 4"], n_frames: int, focus_distance: float, closed: bool = False
) -> Float[Tensor, "frame 4 4"]:
    """Interpolate key poses by cubic splines at constant speed.

    The length of a step is the larger of its translation and its rotation, which the focus distance
    converts to a length. Knots are centripetal, which avoids loops between near cameras (Lee,
    1989). A closed path ends one step before its first pose.
    """
    if len(c2w) == 1 or n_frames == 1:
        return c2w[:1].repeat(n_frames, 1, 1)
    keys = torch.cat([c2w, c2w[:1]]) if closed else c2w
    centers = keys[:, :3, 3].double().numpy()
    rotations = Rotation.from_matrix(keys[:, :3, :3].double().numpy())
    spacing = np.sqrt(_step_lengths(centers, rotations, focus_distance))
    longest = spacing.max() or 1.0
    spacing = np.maximum(spacing, math.sqrt(_MIN_STEP) * longest)
    knots = np.append(0.0, np.cumsum(spacing))
    center_spline = CubicSpline(knots, centers, bc_type="periodic" if closed else "natural")
    rotation_spline = _rotation_spline(knots, rotations, closed)
    shares = np.arange(_POINTS_PER_SEGMENT) / _POINTS_PER_SEGMENT
    dense = np.append((knots[:-1, None] + shares * np.diff(knots)[:, None]).ravel(), knots[-1])
    steps = _step_lengths(center_spline(dense), rotation_spline(dense), focus_distance)
    lengths = np.append(0.0, np.cumsum(steps))
    frame_lengths = np.linspace(0, lengths[-1], n_frames + closed)[:n_frames]
    times = np.interp(frame_lengths, lengths, dense)
    path = torch.eye(4, dtype=torch.float64).repeat(n_frames, 1, 1)
    path[:, :3, 3] = torch.from_numpy(center_spline(times))
    path[:, :3, :3] = torch.from_numpy(rotation_spline(times).as_matrix())
    return path.to(c2w.dtype)


def path_intrinsics(
    intrinsics: Float[Tensor, "view 3 3"],
    source_size: tuple[int, int],
    size: tuple[int, int],
    zoom: float = 1.0,
) -> Float[Tensor, "3 3"]:
    """Return the mean source intrinsics, resized and cropped to ``size`` within the source images.

    ``zoom`` above 1 narrows the field of view.
    """
    scale = zoom * max(size[0] / source_size[0], size[1] / source_size[1])
    resized = resize_intrinsics(intrinsics.mean(0), scale, scale)
    left, top = (source_size[1] * scale - size[1]) / 2, (source_size[0] * scale - size[0]) / 2
    return crop_intrinsics(resized, left, top)


def _step_lengths(centers: np.ndarray, rotations: Rotation, focus_distance: float) -> np.ndarray:
    translations = np.linalg.norm(np.diff(centers, axis=0), axis=-1)
    angles = (rotations[:-1].inv() * rotations[1:]).magnitude()
    return np.maximum(translations, angles * focus_distance * _TURN_LENGTH)


def _rotation_spline(knots: np.ndarray, rotations: Rotation, closed: bool) -> RotationSpline:
    if not closed:
        return RotationSpline(knots, rotations)
    count = len(knots) - 1
    laps, indices = np.divmod(np.arange(-_OVERLAP, count + _OVERLAP + 1), count)
    return RotationSpline(
        knots[indices] + laps * knots[-1], Rotation.from_quat(rotations.as_quat()[indices])
    )


def _full_turn(n_frames: int) -> Float[Tensor, " frame"]:
    """Return angles of one turn that end one step before the first."""
    return 2 * math.pi * torch.arange(n_frames, dtype=torch.float64) / n_frames


def _unit_circle(angles: Float[Tensor, " angle"]) -> Float[Tensor, "angle 2"]:
    return torch.stack([angles.cos(), angles.sin()], -1)


def _on_sphere(
    rig: CameraRig, azimuths: Float[Tensor, " frame"], elevations: Float[Tensor, " frame"]
) -> Float[Tensor, "frame 4 4"]:
    """Return poses at the median distance from the focus that look at it."""
    elevations = elevations.clamp(-_MAX_ELEVATION, _MAX_ELEVATION)[:, None]
    directions = elevations.cos() * (_unit_circle(azimuths) @ rig.level_axes)
    directions = directions + elevations.sin() * rig.up
    return look_at(rig.focus + rig.distance * directions, rig.focus, rig.up)


def _ellipse_in_hull(points: Float[Tensor, "point 2"]) -> Float[Tensor, "2 2"]:
    """Return the axes, as columns, of the largest ellipse around 0 in the hull of the points.

    Its shape is that of the points' covariance. It lies in the hull if its extent in every
    direction is at most the hull's.
    """
    values, vectors = torch.linalg.eigh(points.T @ points / len(points))
    axes = vectors * values.clamp_min(0).sqrt()
    directions, hull = _hull_extents(points)
    extents = (directions @ axes).norm(dim=-1)
    nonzero = extents > 1e-6 * extents.max()
    if not nonzero.any():
        return torch.zeros_like(axes)
    return axes * (hull[nonzero] / extents[nonzero]).min().clamp_min(0)


def _fit_bowl(
    x: Float[Tensor, " view"], y: Float[Tensor, " view"], along: Float[Tensor, " view"]
) -> tuple[Float[Tensor, " term"], float]:
    """Fit ``along`` as a quadratic of x and y; return coefficients and the common deviation."""
    if len(x) < _MIN_BOWL_CAMERAS:
        return x.new_zeros(4), min(along.max().item(), -along.min().item())
    terms = _bowl_terms(x, y)
    # The truncated pseudo-inverse sets undetermined coefficients to 0, for cameras in one row.
    bowl = torch.linalg.pinv(terms, rtol=1e-3) @ along
    residuals = along - terms @ bowl
    return bowl, min(residuals.max().item(), -residuals.min().item())


def _bowl_terms(
    x: Float[Tensor, " point"], y: Float[Tensor, " point"]
) -> Float[Tensor, "point term"]:
    return torch.stack([torch.ones_like(x), x, y, x * x + y * y], -1)


def _level_extent(
    azimuths: Float[Tensor, " view"], elevations: Float[Tensor, " view"]
) -> tuple[float, float]:
    """Return the range of azimuths of the directions' hull at their median elevation."""
    points = torch.stack([azimuths, elevations - elevations.median()], -1)
    directions, hull = _hull_extents(points)
    x = directions[:, 0]
    right, left = x > 1e-9, x < -1e-9
    return (hull[left] / x[left]).max().item(), (hull[right] / x[right]).min().item()


def _hull_extents(
    points: Float[Tensor, "point 2"],
) -> tuple[Float[Tensor, "direction 2"], Float[Tensor, " direction"]]:
    """Return unit directions in the plane and the extent of the points' hull in each."""
    angle = 2 * math.pi * torch.arange(_HULL_DIRECTIONS, dtype=points.dtype) / _HULL_DIRECTIONS
    directions = _unit_circle(angle)
    return directions, (directions @ points.T).max(-1).values
