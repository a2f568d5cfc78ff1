"""Camera paths for videos, made from the cameras that photographed the scene.

Every path stays inside what those cameras see: it moves within the hull of their centres (or of
their directions around what they look at) and looks where they look. ``reach`` relaxes that: 1 is
the largest path of its kind inside the hull, 2 goes twice as far.

All frames share one camera: the mean intrinsics of the sources, cut to the frame's shape without
ever showing more than a source shows.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from utils.cameras import Cameras, crop_intrinsics, resize_intrinsics
from utils.pose_interpolation import smooth_path
from utils.surroundings import Surroundings, focus_point, look_at, survey, upward

_SPIRAL_TURNS = 2
_CAMERAS_OF_A_BOWL = 6
"""Fewer cameras do not say whether they stand on a plane or on a bowl."""
_DIRECTIONS = 360
_STEEPEST = math.radians(85)


def spiral(
    cameras: Cameras, near_far: Float[Tensor, " 2"], n_frames: int, reach: float = 1.0
) -> Float[Tensor, "frame 4 4"]:
    """Circle in front of a scene, moving to and fro, looking at its middle: a closed path.

    The circle is the ellipse inside the hull of the cameras in the plane across their mean axis.
    Along the axis it follows the bowl that they stand on, and moves as far to and fro as they
    stray from it. After the spirals of LLFF (Mildenhall et al., SIGGRAPH 2019).
    """
    focus, up = focus_point(cameras, near_far), upward(cameras)
    centers = cameras.centers.double()
    mean = centers.mean(0)
    frame = look_at(mean[None], focus, up)[0, :3, :3]
    x, y, along = ((centers - mean) @ frame).unbind(-1)
    axes = _ellipse_in_hull(torch.stack([x, y], -1))
    turn = _SPIRAL_TURNS * _turns(n_frames)
    across = torch.stack([turn.cos(), turn.sin()], -1) @ axes.T
    bowl, stray = _fit_bowl(x, y, along)
    # Slower than the circle: once forwards and backwards in all.
    depth = _bowl_terms(*across.unbind(-1)) @ bowl + stray * (turn / _SPIRAL_TURNS).sin()
    path = mean + reach * torch.cat([across, depth[:, None]], -1) @ frame.T
    return look_at(path, focus, up).to(cameras.c2w.dtype)


def orbit(
    cameras: Cameras, near_far: Float[Tensor, " 2"], n_frames: int, reach: float = 1.0
) -> Float[Tensor, "frame 4 4"]:
    """Go around what the cameras look at, level and at their median distance: a closed path.

    All the way round if the cameras stand all around, else to and fro between the outermost.
    """
    around = survey(cameras, near_far)
    turn = _turns(n_frames)
    elevations = around.elevations.median().expand(n_frames)
    if around.surrounded:
        return _around(around, turn, elevations).to(cameras.c2w.dtype)
    low, high = _level_extent(around.azimuths, around.elevations)
    half = min(reach * (high - low) / 2, math.pi)
    azimuths = (low + high) / 2 + half * turn.sin()
    return _around(around, azimuths, elevations).to(cameras.c2w.dtype)


def ellipse(
    cameras: Cameras, near_far: Float[Tensor, " 2"], n_frames: int, reach: float = 1.0
) -> Float[Tensor, "frame 4 4"]:
    """Go around what the cameras look at, rising and sinking: a closed path.

    If the cameras stand all around, the path is an ellipse as long and as wide as where they
    stand, its height following theirs (as in mip-NeRF 360, Barron et al., CVPR 2022). Else
    the directions to the camera draw an ellipse inside those from which they look.
    """
    around = survey(cameras, near_far)
    turn = _turns(n_frames)
    if not around.surrounded:
        directions = torch.stack([around.azimuths, around.elevations], -1)
        mean = directions.mean(0)
        axes = _ellipse_in_hull(directions - mean)
        path = mean + reach * torch.stack([turn.cos(), turn.sin()], -1) @ axes.T
        return _around(around, *path.unbind(-1)).to(cameras.c2w.dtype)
    offsets = cameras.centers.double() - around.focus
    side = torch.linalg.cross(around.up, around.middle)
    level = torch.stack([offsets @ around.middle, offsets @ side], -1)
    radii = reach * level.norm(dim=-1).median() * _shape(level)
    heights = (offsets @ around.up).quantile(torch.tensor([0.25, 0.75], dtype=torch.float64))
    height = torch.lerp(heights[0], heights[1], 0.5 + 0.5 * (2 * turn).sin())
    centers = (
        around.focus
        + (radii[0] * turn.cos())[:, None] * around.middle
        + (radii[1] * turn.sin())[:, None] * side
        + height[:, None] * around.up
    )
    return look_at(centers, around.focus, around.up).to(cameras.c2w.dtype)


def interpolate(
    cameras: Cameras, near_far: Float[Tensor, " 2"], n_frames: int, closed: bool = False
) -> Float[Tensor, "frame 4 4"]:
    """Pass smoothly through the cameras in their order, at constant speed."""
    focus = focus_point(cameras, near_far)
    distance = (cameras.centers.double() - focus).norm(dim=-1).median().item()
    return smooth_path(cameras.c2w, n_frames, distance, closed)


def path_intrinsics(
    intrinsics: Float[Tensor, "view 3 3"],
    source_size: tuple[int, int],
    size: tuple[int, int],
    zoom: float = 1.0,
) -> Float[Tensor, "3 3"]:
    """Return the camera of a path: the mean of the sources', cut to another shape and size.

    Args:
        intrinsics: Of the sources, at ``source_size``.
        source_size: Height and width of the sources.
        size: Height and width of the frames.
        zoom: Above 1 shows less, enlarged about the middle.
    """
    scale = zoom * max(size[0] / source_size[0], size[1] / source_size[1])
    grown = resize_intrinsics(intrinsics.mean(0), scale, scale)
    left, top = (source_size[1] * scale - size[1]) / 2, (source_size[0] * scale - size[0]) / 2
    return crop_intrinsics(grown, left, top)


def _turns(n_frames: int) -> Float[Tensor, " frame"]:
    """Angles of one turn, the last one step before the first."""
    return 2 * math.pi * torch.arange(n_frames, dtype=torch.float64) / n_frames


def _around(
    around: Surroundings, azimuths: Float[Tensor, " frame"], elevations: Float[Tensor, " frame"]
) -> Float[Tensor, "frame 4 4"]:
    side = torch.linalg.cross(around.up, around.middle)
    elevations = elevations.clamp(-_STEEPEST, _STEEPEST)[:, None]
    azimuths = azimuths[:, None]
    level = azimuths.cos() * around.middle + azimuths.sin() * side
    directions = elevations.cos() * level + elevations.sin() * around.up
    return look_at(around.focus + around.distance * directions, around.focus, around.up)


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
    """Fit ``along`` over the plane; return the terms' factors and how far all cameras stray."""
    if len(x) < _CAMERAS_OF_A_BOWL:
        return x.new_zeros(4), min(along.max().item(), -along.min().item())
    terms = _bowl_terms(x, y)
    # The pseudo-inverse leaves alone what cameras in one row cannot say.
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
    directions = torch.stack([angle.cos(), angle.sin()], -1)
    return directions, (directions @ points.T).max(-1).values


def _shape(level: Float[Tensor, "view 2"]) -> Float[Tensor, " 2"]:
    """Relative extents of a ring along two axes, with mean 1."""
    extents = level.abs().amax(0)
    return 2 * extents / extents.sum()
