import math

import pytest
import torch

from utils.cameras import (
    Cameras,
    crop_intrinsics,
    invert_rigid,
    pixel_grid,
    pixel_rays,
    project,
    resize_intrinsics,
    unproject,
)


def look_from(x: float, y: float, z: float, angle: float = 0.0) -> Cameras:
    """A camera at (x, y, z), turned by an angle around the y axis."""
    c, s = math.cos(angle), math.sin(angle)
    c2w = torch.tensor([[c, 0, s, x], [0, 1, 0, y], [-s, 0, c, z], [0, 0, 0, 1.0]])
    intrinsics = torch.tensor([[100.0, 0, 32], [0, 120.0, 24], [0, 0, 1]])
    return Cameras(intrinsics, c2w)


def test_projects_a_point_where_the_equation_says():
    pixels, depths = project(torch.tensor([[0.5, -0.25, 4.0]]), look_from(0, 0, 2))
    torch.testing.assert_close(pixels, torch.tensor([[32 + 100 * 0.25, 24 - 120 * 0.125]]))
    torch.testing.assert_close(depths, torch.tensor([2.0]))


def test_x_points_right_and_y_down_in_the_image():
    pixels, _ = project(torch.tensor([[1.0, 1.0, 5.0], [0.0, 0.0, 5.0]]), look_from(0, 0, 0))
    assert (pixels[0] > pixels[1]).all()


def test_unproject_inverts_project_for_a_turned_camera_with_skew():
    camera = look_from(1, -2, 0.5, angle=0.7)
    camera.intrinsics[0, 1] = 3.0
    points = camera.centers + torch.tensor([[2.0, 0.3, 3.0], [1.5, -1.0, 4.0]])
    pixels, depths = project(points, camera)
    assert (depths > 0).all()
    torch.testing.assert_close(unproject(pixels, depths, camera), points)


def test_rays_meet_the_projected_point_at_its_depth():
    camera = look_from(0.3, 0.1, -1, angle=-0.4)
    point = torch.tensor([[0.2, -0.3, 3.0]])
    pixels, depths = project(point, camera)
    rays = pixel_rays(camera, pixels)
    torch.testing.assert_close(rays.at(depths[:, None])[:, 0], point)


def test_points_behind_are_finite_and_have_negative_depth():
    pixels, depths = project(torch.tensor([[0.0, 0, -3], [1.0, 1, 0]]), look_from(0, 0, 0))
    assert pixels.isfinite().all()
    assert depths[0] < 0 and depths[1] == 0


def test_projection_gradient_is_finite_at_the_camera_centre():
    points = torch.zeros(1, 3, requires_grad=True)
    pixels, _ = project(points, look_from(0, 0, 0))
    pixels.sum().backward()
    assert points.grad is not None and points.grad.isfinite().all()


def test_resizing_moves_a_pixel_with_the_image_edges():
    # In the half-pixel convention the image's corner stays the corner: 64 -> 32 halves all.
    camera = look_from(0, 0, 0)
    half = Cameras(resize_intrinsics(camera.intrinsics, 0.5, 0.5), camera.c2w)
    point = torch.tensor([[0.1, 0.2, 1.0]])
    torch.testing.assert_close(project(point, half)[0], project(point, camera)[0] / 2)


def test_cropping_shifts_pixels():
    camera = look_from(0, 0, 0)
    cropped = Cameras(crop_intrinsics(camera.intrinsics, 5.0, 7.0), camera.c2w)
    point = torch.tensor([[0.1, 0.2, 1.0]])
    expected = project(point, camera)[0] - torch.tensor([5.0, 7.0])
    torch.testing.assert_close(project(point, cropped)[0], expected)


def test_rigid_inverse_and_scaled_world():
    camera = look_from(1, 2, 3, angle=1.1)
    torch.testing.assert_close(invert_rigid(camera.c2w) @ camera.c2w, torch.eye(4))
    point = torch.tensor([[4.0, 2.0, 9.0]])
    pixels, depths = project(point, camera)
    scaled_pixels, scaled_depths = project(point / 200, camera.scaled_world(1 / 200))
    torch.testing.assert_close(scaled_pixels, pixels)
    torch.testing.assert_close(scaled_depths, depths / 200)


def test_pixel_grid_holds_centres_row_by_row():
    grid = pixel_grid(2, 3, torch.device("cpu"))
    expected = [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [0.5, 1.5], [1.5, 1.5], [2.5, 1.5]]
    assert grid.tolist() == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_geometry_ignores_autocast(dtype):
    camera = look_from(0.3, 0.1, -1, angle=-0.4)
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) + 1
    plain = project(points, camera)[0]
    with torch.autocast("cpu", dtype):
        mixed = project(points, camera)[0]
        back = unproject(mixed, project(points, camera)[1], camera)
    assert torch.equal(plain, mixed)
    torch.testing.assert_close(back, points)
