"""Every mix-up of conventions is recognised on matches of cameras that are known."""

import numpy as np
import pytest
import torch

from apps.inspection.conventions import MatchedPair, check_cameras, fit_pair
from utils.cameras import Cameras, invert_rigid, project

SIZE = (480, 640)
RANGE, SHUFFLED = [0, 1, 2, 3, 4, 5], [3, 0, 5, 1, 4, 2]


def arc(count=6, roll=0.05):
    """Cameras about the origin at different heights and distances, a little rolled."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    for view in range(count):
        angle, distance = 0.25 * view, 4 + 0.3 * view
        center = np.array([np.sin(angle), 0.15 * (-1) ** view - 0.3, -np.cos(angle)]) * distance
        forward = -center / np.linalg.norm(center)
        right = np.cross([np.sin(roll * view), 1.0, 0.0], forward)
        right /= np.linalg.norm(right)
        axes = np.stack([right, np.cross(forward, right), forward, center], 1)
        c2w[view, :3] = torch.from_numpy(axes)
    intrinsics = torch.tensor([[500.0, 0, 350], [0, 510, 225], [0, 0, 1]])
    return Cameras(intrinsics.repeat(count, 1, 1), c2w.float())


def evidence(true, given, noise=0.3):
    """Matches of points that the true cameras see, with the cameras that a file claims."""
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for first in range(len(true.c2w) - 1):
        points = torch.randn(80, 3, generator=generator)
        pixels, _ = project(points, true[[first, first + 1]])
        pixels = pixels + noise * torch.randn(pixels.shape, generator=generator)
        pairs.append(MatchedPair(pixels, given[[first, first + 1]]))
    return pairs


def opengl(matrices):
    return matrices @ torch.diag(torch.tensor([1.0, -1, -1, 1]))


def llff(matrices):
    axes = torch.tensor([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])
    return matrices @ axes


READ = {"opengl": opengl, "llff": llff, "opencv": invert_rigid}
"""From the matrices of a file to the house convention, as the readers do it."""


@pytest.mark.parametrize(
    ("written", "file", "name"),
    [
        ("opengl", lambda c: c, "OpenCV axes instead of OpenGL"),
        ("opengl", lambda c: invert_rigid(opengl(c)), "world-to-camera matrices"),
        ("opengl", invert_rigid, "OpenCV's world-to-camera"),
        ("opengl", llff, "LLFF's axes"),
        ("llff", opengl, "OpenGL's axes"),
        ("llff", lambda c: c, "OpenCV's axes"),
        ("opencv", lambda c: c, "camera-to-world matrices"),
        ("opencv", lambda c: invert_rigid(opengl(c)), "OpenGL axes instead of OpenCV"),
        ("opencv", opengl, "OpenGL's camera-to-world"),
    ],
)
def test_mixed_up_poses_are_named(written, file, name):
    true = arc()
    assert_named(true, Cameras(true.intrinsics, READ[written](file(true.c2w))), name, written)


@pytest.mark.parametrize(
    ("factor", "center", "name"),
    [
        (1.0, (225.0, 350.0), "swapped principal point"),
        (0.5, (350.0, 225.0), "half the size"),
        (2.0, (350.0, 225.0), "twice the size"),
        (4.0, (350.0, 225.0), "four times the size"),
    ],
)
def test_mixed_up_intrinsics_are_named(factor, center, name):
    true = arc()
    matrix = torch.tensor([[500.0 * factor, 0, center[0]], [0, 510 * factor, center[1]], [0, 0, 1]])
    assert_named(true, Cameras(matrix.expand(6, 3, 3), true.c2w), name)


def assert_named(true, given, name, *written):
    check = check_cameras(evidence(true, given), SIZE, *written)
    assert not check.consistent
    assert check.hypothesis is not None and name in check.hypothesis.name
    assert check.corrected_epipolar < 1


def test_right_cameras_are_fine_and_those_of_another_scene_are_not_repaired():
    true = arc()
    right = check_cameras(evidence(true, true[RANGE]), SIZE)
    shuffled = check_cameras(evidence(true, true[SHUFFLED]), SIZE)
    assert right.consistent and right.hypothesis is None
    assert right.epipolar < 0.5 and right.in_front == 1
    assert not shuffled.consistent and shuffled.hypothesis is None


def test_depths_of_triangulated_points():
    true = arc(2)
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    pixels, depths = project(points, true)
    fit = fit_pair(pixels, true)
    assert fit.epipolar.max() < 1e-2 and fit.in_front == 1
    torch.testing.assert_close(fit.depths, depths, rtol=1e-3, atol=1e-3)


def test_a_camera_and_itself_give_finite_numbers():
    fit = fit_pair(torch.rand(2, 30, 2) * 400, arc(2)[[0, 0]])
    assert fit.epipolar.isfinite().all() and fit.depths.isfinite().all()
