"""Camera paths: where they go, where they look, how fast."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from utils.camera_rig import (
    describe_rig,
    focus_distance,
    focus_point,
    look_at,
    nearest_point_to_axes,
    up_direction,
)
from utils.cameras import Cameras, project
from utils.trajectories import ellipse, orbit, path_intrinsics, smooth_path, spiral

NEAR_FAR = torch.tensor([2.0, 6.0])
UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
CENTRE = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)


def cameras_at(centers, target=CENTRE):
    intrinsics = torch.tensor([[50.0, 0, 40], [0, 50, 30], [0, 0, 1]]).expand(len(centers), 3, 3)
    return Cameras(intrinsics, look_at(centers, target, UP).float())


def through(cameras, near_far, n_frames, closed=False):
    return smooth_path(cameras.c2w, n_frames, focus_distance(cameras, near_far), closed)


def on_sphere(azimuths, elevations, radius=4.0):
    azimuths, elevations = (torch.as_tensor(a, dtype=torch.float64) for a in (azimuths, elevations))
    level = elevations.cos()
    parts = [level * azimuths.cos(), level * azimuths.sin(), elevations.sin()]
    return CENTRE + radius * torch.stack(parts, -1)


def cameras_on_a_cap():
    azimuths, elevations = torch.linspace(0.5, 1.7, 5), torch.linspace(0.2, 0.8, 3)
    return cameras_at(on_sphere(*torch.cartesian_prod(azimuths, elevations).T))


def cameras_all_around():
    azimuths = torch.arange(12) * (2 * math.pi / 12)
    return cameras_at(on_sphere(azimuths, 0.4 + 0.1 * torch.cos(3 * azimuths)))


def parallel_cameras():
    """Twenty cameras that look along y."""
    x, z = torch.cartesian_prod(torch.linspace(-1, 1, 5), torch.linspace(-0.5, 0.5, 4)).double().T
    ahead = torch.tensor([[0, 1.0, 0]]).double()
    c2w = look_at(0 * ahead, ahead[0], UP).repeat(20, 1, 1)
    c2w[:, :3, 3] = torch.stack([x, 0.2 * torch.sin(7 * x + 3 * z), z], -1)
    return Cameras(torch.eye(3).expand(20, 3, 3), c2w.float())


CAP, RING, GRID = cameras_on_a_cap(), cameras_all_around(), parallel_cameras()


def rigid(path):
    rotation = path[:, :3, :3].double()
    identity = torch.eye(3, dtype=torch.float64).expand_as(rotation)
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), identity, atol=1e-5, rtol=0)
    assert (torch.linalg.det(rotation) > 0).all()


def offsets(path):
    return path[:, :3, 3].double() - CENTRE


def azimuths_of(path):
    return torch.atan2(offsets(path)[:, 1], offsets(path)[:, 0])


def angles_between(path):
    turns = Rotation.from_matrix(path[:, :3, :3].double().numpy())
    return torch.from_numpy((turns[:-1].inv() * turns[1:]).as_rotvec())


def steps(path, closed=False):
    centers = torch.cat([path, path[:1]])[:, :3, 3] if closed else path[:, :3, 3]
    return centers.diff(dim=0).norm(dim=-1)


@pytest.mark.parametrize("make", [spiral, orbit, ellipse])
@pytest.mark.parametrize("cameras", [CAP, RING, GRID], ids=["cap", "ring", "grid"])
def test_paths_are_closed_upright_and_look_at_the_focus(make, cameras):
    path = make(cameras, NEAR_FAR, 40)
    rigid(path)
    moves = steps(path, closed=True)
    assert moves.max() < 0.25 * moves.sum() and moves.sum() > 0.1
    focus = focus_point(cameras, NEAR_FAR).float()
    along_path = Cameras(torch.eye(3).expand(40, 3, 3), path)
    pixels, depths = project(focus.expand(40, 1, 3), along_path)
    assert pixels.abs().max() < 1e-4 and (depths > 0).all()
    assert (path[:, 2, 1] < 0).all(), "the image's y axis points down"
    assert path[:, 2, 0].abs().max() < 0.01, "the horizon is level"


def test_spiral_stays_within_the_cameras():
    path, centers = spiral(GRID, NEAR_FAR, 60), GRID.centers
    # Along the axis it follows a bowl, and may leave the cameras by a little.
    slack = torch.tensor([1e-5, 0.1, 1e-5])
    assert (path[:, :3, 3] <= centers.amax(0) + slack).all()
    assert (path[:, :3, 3] >= centers.amin(0) - slack).all()
    assert (path[:, 0, 3].max() - 1.0).abs() < 0.1 and path[:, 1, 3].std() > 0.02
    twice = spiral(GRID, NEAR_FAR, 60, reach=2.0)
    torch.testing.assert_close(twice[:, :3, 3].mean(0), centers.mean(0), atol=1e-4, rtol=0)
    assert (twice[:, 0, 3].max() - 2.0).abs() < 0.2
    assert (offsets(spiral(CAP, NEAR_FAR, 60)).norm(dim=-1) - 4).abs().max() < 0.15
    corners = torch.tensor([[-1.0, -4, 0], [1, -4, 0], [0.2, -4, 1]], dtype=torch.float64)
    inside = spiral(cameras_at(corners), NEAR_FAR, 50)[:, :3, 3].double()
    matrix = torch.cat([corners[:, [0, 2]].T, torch.ones(1, 3)]).double()
    flat = torch.stack([inside[:, 0], inside[:, 2], torch.ones(50)])
    assert torch.linalg.solve(matrix, flat).min() > -0.02, "three cameras: in their triangle"


def test_orbit_keeps_distance_height_and_range():
    path = orbit(CAP, NEAR_FAR, 48)
    around = describe_rig(Cameras(CAP.intrinsics[:1].expand(48, 3, 3), path), NEAR_FAR)
    assert (offsets(path).norm(dim=-1) - 4).abs().max() < 0.02
    azimuths = azimuths_of(path)
    assert 0.5 - 0.01 < azimuths.min() < 0.6 and 1.6 < azimuths.max() < 1.7 + 0.01
    assert not around.surrounds and torch.dot(around.up, UP) > 0.999
    assert azimuths_of(orbit(CAP, NEAR_FAR, 48, reach=2.0)).max() > 2.0
    # All the way round where the cameras stand all around.
    assert describe_rig(RING, NEAR_FAR).surrounds
    assert azimuths_of(orbit(RING, NEAR_FAR, 36)).sort().values.diff().max() < 0.2


def test_ellipse_of_a_cap_stays_within_its_directions():
    path = ellipse(CAP, NEAR_FAR, 40)
    elevations = torch.asin(offsets(path)[:, 2] / offsets(path).norm(dim=-1))
    assert azimuths_of(path).min() > 0.48 and azimuths_of(path).max() < 1.72
    assert elevations.min() > 0.18 and elevations.max() < 0.82
    assert elevations.max() - elevations.min() > 0.4


@pytest.mark.parametrize("closed", [False, True])
def test_interpolation_passes_all_cameras_at_constant_speed(closed):
    some = RING[torch.tensor([0, 1, 3, 4])]
    path = through(some, NEAR_FAR, 240, closed)
    rigid(path)
    moves = steps(path, closed)
    assert moves.max() < 1.03 * moves.min()
    distances = (path[:, None, :3, 3] - some.centers).norm(dim=-1)
    nearest = distances.argmin(0)
    assert distances.amin(0).max() < moves.max()
    turned = path[nearest, :3, :3].transpose(1, 2) @ some.c2w[:, :3, :3]
    assert (turned.diagonal(dim1=1, dim2=2).sum(-1) > 2.99).all()
    torch.testing.assert_close(path[0], some.c2w[0], atol=1e-5, rtol=0)
    if not closed:
        torch.testing.assert_close(path[-1], some.c2w[-1], atol=1e-5, rtol=0)


def test_turning_in_place_has_constant_speed_too():
    azimuths = torch.tensor([0.0, 0.4, 2.0])
    keys = look_at(-on_sphere(azimuths, 0 * azimuths) + CENTRE, CENTRE * 0, UP).float()
    keys[:, :3, 3] = 0
    angles = angles_between(smooth_path(keys, 50, 4.0)).norm(dim=-1)
    assert angles.max() < 1.1 * angles.min()


def test_repeated_poses_and_single_frames():
    keys = torch.eye(4).repeat(4, 1, 1)
    keys[2:, 0, 3] = 1
    for closed in (False, True):
        path = smooth_path(keys, 20, 3.0, closed)
        assert path.isfinite().all() and path[:, 0, 3].min() > -0.2
    assert torch.equal(smooth_path(keys[:1], 3, 1.0), keys[:3] * 0 + torch.eye(4))
    assert torch.equal(smooth_path(keys[:2] * 0 + torch.eye(4), 5, 1.0), keys[0].expand(5, 4, 4))
    one = Cameras(torch.eye(3)[None], torch.eye(4)[None])
    assert all(
        make(one, NEAR_FAR, 3).isfinite().all() for make in (spiral, orbit, ellipse, through)
    )


@pytest.mark.parametrize("count", [3, 8])
def test_a_closed_loop_has_no_kink_where_it_meets(count):
    """Position and orientation change there as they do one frame earlier and later."""
    path = through(RING[torch.arange(count) * (12 // count)], NEAR_FAR, 600, closed=True)
    path = torch.cat([path[-2:], path[:3]]).double()
    moves = path[:, :3, 3].diff(dim=0)
    assert moves.diff(dim=0).norm(dim=-1).max() < 0.06 * moves.norm(dim=-1).min()
    rates = angles_between(path)
    assert rates.diff(dim=0).norm(dim=-1).max() < 0.06 * rates.norm(dim=-1).max()


def test_up_is_not_the_mean_up_and_the_focus_is_where_axes_meet():
    assert up_direction(CAP) @ UP > 0.999
    assert -CAP.c2w[:, :3, 1].mean(0).double() @ UP < 0.95
    centers, axes = CAP.centers.double(), CAP.c2w[:, :3, 2].double()
    torch.testing.assert_close(nearest_point_to_axes(centers, axes), CENTRE, atol=1e-6, rtol=0)
    parallel = torch.tensor([[0.0, 0, 1]]).double().expand(2, 3)
    ahead = torch.tensor([0.0, 0, 3]).double()
    sides = torch.tensor([[-1.0, 0, 0], [1, 0, 0]]).double()
    torch.testing.assert_close(nearest_point_to_axes(sides, parallel, ahead), ahead)


@pytest.mark.parametrize("size", [(60, 80), (30, 40), (45, 90), (90, 45)])
def test_frames_of_any_shape_show_no_more_than_the_sources(size):
    intrinsics = path_intrinsics(CAP.intrinsics, (60, 80), size)
    corners = torch.tensor([[0.0, 0, 1], [size[1], size[0], 1]])
    seen = corners @ torch.linalg.inv(intrinsics).T @ CAP.intrinsics[0].T
    assert (seen[0, :2] >= -1e-4).all()
    assert (seen[1, :2] <= torch.tensor([80.0, 60.0]) + 1e-4).all()
    zoomed = path_intrinsics(CAP.intrinsics, (60, 80), size, zoom=2.0)
    assert torch.allclose(zoomed[0, 0], 2 * intrinsics[0, 0])
