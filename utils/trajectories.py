"""Camera paths for videos, made from the cameras that photographed the scene.

Every path stays inside what those cameras see: it moves within the hull of their centres (or of
their directions around what they look at) and looks where they look. ``reach`` relaxes that: 1 is
the largest path of its kind inside the hull, 2 goes twice as far. All frames share one camera.
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
_CAMERAS_OF_A_BOWL = 6
"""Fewer cameras do not say whether they stand on a plane or on a bowl."""
_DIRECTIONS = 360
_STEEPEST = math.radians(85)
_DENSE = 64
"""Points per segment by which the length of a curve is measured."""
_TURN_LENGTH = 0.25
"""A turn of one radian is as long as this share of the focus distance, if the centre moves less."""
_LEAST_STEP = 1e-3
"""Between two poses that are the same, relative to the longest step."""
_OVERLAP = 8
"""Poses by which the rotations of a closed path continue past both ends."""


def spiral(
    cameras: Cameras, near_far: Float[Tensor, " 2"], n_frames: int, reach: float = 1.0
) -> Float[Tensor, "frame 4 4"]:
    """Circle in front of a scene, moving back and forth, looking at its middle: a closed path.

    The circle is the ellipse inside the hull of the cameras in the plane across their mean axis.
    Along the axis it follows the bowl on which they stand, and moves back and forth as far as they
    deviate from it. After the spirals of LLFF (Mildenhall et al., SIGGRAPH 2019).
    """
    rig, centers = describe_rig(cameras, near_far), cameras.centers.double()
    mean = centers.mean(0)
    frame = look_at(mean[None], rig.focus, rig.up)[0, :3, :3]
    x, y, along = ((centers - mean) @ frame).unbind(-1)
    turn = _SPIRAL_TURNS * _full_turn(n_frames)
    across = _unit_circle(turn) @ _ellipse_in_hull(torch.stack([x, y], -1)).T
    bowl, deviation = _fit_bowl(x, y, along)
    # Slower than the circle: once forwards and backwards in all.
    depth = _bowl_terms(*across.unbind(-1)) @ bowl + deviation * (turn / _SPIRAL_TURNS).sin()
    path = mean + reach * torch.cat([across, depth[:, None]], -1) @ frame.T
    return look_at(path, rig.focus, rig.up).to(cameras.c2w.dtype)


def orbit(
    cameras: Cameras, near_far: Float[Tensor, " 2"], n_frames: int, reach: float = 1.0
) -> Float[Tensor, "frame 4 4"]:
    """Go around what the cameras look at, level and at their median distance: a closed path.

    All the way round if the cameras stand all around, else back and forth between the outermost.
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
    """Go around what the cameras look at, rising and sinking: a closed path.

    If the cameras stand all around, the path is an ellipse as long and as wide as where they
    stand, its height following theirs (as in mip-NeRF 360, Barron et al., CVPR 2022). Else
    the directions to the camera draw an ellipse inside those from which they look.
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
    """Pass through poses along cubic splines, in their order and at constant speed.

    Speed is that of the camera's centre; where it turns in place, or much faster than it moves,
    that of the turn; the focus distance relates turns to movement. Knots are centripetal: no loops
    between near cameras (Lee, 1989). A closed path ends one step before its first pose.
    """
    if len(c2w) == 1 or n_frames == 1:
        return c2w[:1].repeat(n_frames, 1, 1)
    keys = torch.cat([c2w, c2w[:1]]) if closed else c2w
    centers = keys[:, :3, 3].double().numpy()
    turns = Rotation.from_matrix(keys[:, :3, :3].double().numpy())
    spacing = np.sqrt(_step_lengths(centers, turns, focus_distance))
    longest = spacing.max() or 1.0
    spacing = np.maximum(spacing, math.sqrt(_LEAST_STEP) * longest)
    knots = np.append(0.0, np.cumsum(spacing))
    center_spline = CubicSpline(knots, centers, bc_type="periodic" if closed else "natural")
    turn_spline = _rotation_spline(knots, turns, closed)
    shares = np.arange(_DENSE) / _DENSE
    dense = np.append((knots[:-1, None] + shares * np.diff(knots)[:, None]).ravel(), knots[-1])
    steps = _step_lengths(center_spline(dense), turn_spline(dense), focus_distance)
    lengths = np.append(0.0, np.cumsum(steps))
    wanted = np.linspace(0, lengths[-1], n_frames + closed)[:n_frames]
    times = np.interp(wanted, lengths, dense)
    path = torch.eye(4, dtype=torch.float64).repeat(n_frames, 1, 1)
    path[:, :3, 3] = torch.from_numpy(center_spline(times))
    path[:, :3, :3] = torch.from_numpy(turn_spline(times).as_matrix())
    return path.to(c2w.dtype)


def path_intrinsics(
    intrinsics: Float[Tensor, "view 3 3"],
    source_size: tuple[int, int],
    size: tuple[int, int],
    zoom: float = 1.0,
) -> Float[Tensor, "3 3"]:
    """Return the mean of the sources' intrinsics, cut to a size without showing more than they do.

    ``zoom`` above 1 shows less, enlarged about the middle.
    """
    scale = zoom * max(size[0] / source_size[0], size[1] / source_size[1])
    grown = resize_intrinsics(intrinsics.mean(0), scale, scale)
    left, top = (source_size[1] * scale - size[1]) / 2, (source_size[0] * scale - size[0]) / 2
    return crop_intrinsics(grown, left, top)


def _step_lengths(centers: np.ndarray, turns: Rotation, focus_distance: float) -> np.ndarray:
    moved = np.linalg.norm(np.diff(centers, axis=0), axis=-1)
    turned = (turns[:-1].inv() * turns[1:]).magnitude()
    return np.maximum(moved, turned * focus_distance * _TURN_LENGTH)


def _rotation_spline(knots: np.ndarray, turns: Rotation, closed: bool) -> RotationSpline:
    """Interpolate rotations; a closed spline continues past its ends, so that they fit smoothly."""
    if not closed:
        return RotationSpline(knots, turns)
    count = len(knots) - 1
    laps, indices = np.divmod(np.arange(-_OVERLAP, count + _OVERLAP + 1), count)
    return RotationSpline(
        knots[indices] + laps * knots[-1], Rotation.from_quat(turns.as_quat()[indices])
    )


def _full_turn(n_frames: int) -> Float[Tensor, " frame"]:
    """Angles of one turn, the last one step before the first."""
    return 2 * math.pi * torch.arange(n_frames, dtype=torch.float64) / n_frames


def _unit_circle(angles: Float[Tensor, " angle"]) -> Float[Tensor, "angle 2"]:
    return torch.stack([angles.cos(), angles.sin()], -1)


def _on_sphere(
    rig: CameraRig, azimuths: Float[Tensor, " frame"], elevations: Float[Tensor, " frame"]
) -> Float[Tensor, "frame 4 4"]:
    """Look at the focus from its median distance in the given directions."""
    elevations = elevations.clamp(-_STEEPEST, _STEEPEST)[:, None]
    directions = elevations.cos() * (_unit_circle(azimuths) @ rig.level_axes)
    directions = directions + elevations.sin() * rig.up
    return look_at(rig.focus + rig.distance * directions, rig.focus, rig.up)


def _ellipse_in_hull(points: Float[Tensor, "point 2"]) -> Float[Tensor, "2 2"]:
    """Return the axes, as columns, of the largest ellipse around 0 in the hull of the points.

    Its shape is that of the points' covariance. One convex body lies in another if in no direction
    it reaches farther.
    """
    values, vectors = torch.linalg.eigh(points.T @ points / len(points))
    axes = vectors * values.clamp_min(0).sqrt()
    directions, hull = _hull_extents(points)
    reached = (directions @ axes).norm(dim=-1)
    matters = reached > 1e-6 * reached.max()
    if not matters.any():
        return torch.zeros_like(axes)
    return axes * (hull[matters] / reached[matters]).min().clamp_min(0)


def _fit_bowl(
    x: Float[Tensor, " view"], y: Float[Tensor, " view"], along: Float[Tensor, " view"]
) -> tuple[Float[Tensor, " term"], float]:
    """Fit ``along`` over the plane; return the coefficients and how far all cameras deviate."""
    if len(x) < _CAMERAS_OF_A_BOWL:
        return x.new_zeros(4), min(along.max().item(), -along.min().item())
    terms = _bowl_terms(x, y)
    # The truncated pseudo-inverse ignores what cameras in one row do not determine.
    bowl = torch.linalg.pinv(terms, rtol=1e-3) @ along
    rest = along - terms @ bowl
    return bowl, min(rest.max().item(), -rest.min().item())


def _bowl_terms(
    x: Float[Tensor, " point"], y: Float[Tensor, " point"]
) -> Float[Tensor, "point term"]:
    return torch.stack([torch.ones_like(x), x, y, x * x + y * y], -1)


def _level_extent(
    azimuths: Float[Tensor, " view"], elevations: Float[Tensor, " view"]
) -> tuple[float, float]:
    """Return where the hull of directions begins and ends at their median elevation."""
    points = torch.stack([azimuths, elevations - elevations.median()], -1)
    directions, hull = _hull_extents(points)
    x = directions[:, 0]
    right, left = x > 1e-9, x < -1e-9
    return (hull[left] / x[left]).max().item(), (hull[right] / x[right]).min().item()


def _hull_extents(
    points: Float[Tensor, "point 2"],
) -> tuple[Float[Tensor, "direction 2"], Float[Tensor, " direction"]]:
    """Return directions all around, and how far the hull of the points reaches in each."""
    angle = 2 * math.pi * torch.arange(_DIRECTIONS, dtype=points.dtype) / _DIRECTIONS
    directions = _unit_circle(angle)
    return directions, (directions @ points.T).max(-1).values
