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
    return Cameras(torch.tensor([[100.0, 0, 32], [0, 120.0, 24], [0, 0, 1]]), c2w)


def test_projects_a_point_where_the_equation_says():
    pixels, depths = project(torch.tensor([[0.5, -0.25, 4.0]]), look_from(0, 0, 2))
    torch.testing.assert_close(pixels, torch.tensor([[32 + 100 * 0.25, 24 - 120 * 0.125]]))
    torch.testing.assert_close(depths, torch.tensor([2.0]))


def test_unproject_and_rays_invert_project_for_a_turned_camera_with_skew():
    camera = look_from(1, -2, 0.5, angle=0.7)
    camera.intrinsics[0, 1] = 3.0
    points = camera.centers + torch.tensor([[2.0, 0.3, 3.0], [1.5, -1.0, 4.0]])
    pixels, depths = project(points, camera)
    assert (depths > 0).all()
    torch.testing.assert_close(unproject(pixels, depths, camera), points)
    on_rays = pixel_rays(camera, pixels).at(depths[:, None])[:, 0]
    torch.testing.assert_close(on_rays, points)


def test_points_behind_and_at_the_camera_are_finite_with_finite_gradients():
    points = torch.tensor([[0.0, 0, -3], [1.0, 1, 0], [0, 0, 0]], requires_grad=True)
    pixels, depths = project(points, look_from(0, 0, 0))
    assert pixels.isfinite().all() and depths[0] < 0 and (depths[1:] == 0).all()
    pixels.sum().backward()
    assert points.grad is not None and points.grad.isfinite().all()


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        # In the half-pixel convention the image's corner stays the corner: 64 -> 32 halves all.
        (lambda matrix: resize_intrinsics(matrix, 0.5, 0.5), lambda pixels: pixels / 2),
        (lambda m: crop_intrinsics(m, 5.0, 7.0), lambda pixels: pixels - torch.tensor([5.0, 7.0])),
    ],
    ids=["resized", "cropped"],
)
def test_intrinsics_of_a_changed_image(change, moved):
    camera, point = look_from(0, 0, 0), torch.tensor([[0.1, 0.2, 1.0]])
    changed = Cameras(change(camera.intrinsics), camera.c2w)
    torch.testing.assert_close(project(point, changed)[0], moved(project(point, camera)[0]))


def test_rigid_inverse_and_scaled_world():
    camera = look_from(1, 2, 3, angle=1.1)
    torch.testing.assert_close(invert_rigid(camera.c2w) @ camera.c2w, torch.eye(4))
    point = torch.tensor([[4.0, 2.0, 9.0]])
    pixels, depths = project(point, camera)
    scaled = project(point / 200, camera.scaled_world(1 / 200))
    torch.testing.assert_close(scaled, (pixels, depths / 200))


def test_pixel_grid_holds_centres_row_by_row():
    expected = [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [0.5, 1.5], [1.5, 1.5], [2.5, 1.5]]
    assert pixel_grid(2, 3, torch.device("cpu")).tolist() == expected


def test_geometry_ignores_autocast():
    camera = look_from(0.3, 0.1, -1, angle=-0.4)
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) + 1
    plain = project(points, camera)[0]
    with torch.autocast("cpu", torch.bfloat16):
        mixed, depths = project(points, camera)
        back = unproject(mixed, depths, camera)
    assert torch.equal(plain, mixed)
    torch.testing.assert_close(back, points)
