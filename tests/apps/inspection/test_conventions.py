"""Every mix-up of conventions is recognised on matches of cameras that are known."""

import numpy as np
import pytest
import torch

from apps.inspection.conventions import MatchedPair, fit_pair, judge
from utils.cameras import Cameras, invert_rigid, project

SIZE = (480, 640)


def arc(count=6, roll=0.05):
    """Cameras about the origin at different heights and distances, a little rolled."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    for view in range(count):
        angle = 0.25 * view
        center = np.array([np.sin(angle), 0.15 * (-1) ** view - 0.3, -np.cos(angle)]) * (
            4 + 0.3 * view
        )
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


FLIP = [[1, 0, 0], [0, -1, 0], [0, 0, -1]]


def swapped_center(cameras):
    intrinsics = cameras.intrinsics.clone()
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = 225, 350
    return Cameras(intrinsics, cameras.c2w)


def focal(cameras, factor):
    scale = torch.tensor([[factor, 1, 1], [1, factor, 1], [1, 1, 1]])
    return Cameras(cameras.intrinsics * scale, cameras.c2w)


def test_right_cameras_are_fine():
    true = arc()
    verdict = judge(evidence(true, true), SIZE)
    assert verdict.fine and verdict.repaired is None
    assert verdict.epipolar < 0.5 and verdict.in_front == 1


def turned(matrices, rotation):
    result = matrices.clone()
    result[:, :3, :3] = matrices[:, :3, :3] @ torch.tensor(rotation, dtype=torch.float32)
    return result


READ = {
    "opengl": lambda matrices: turned(matrices, FLIP),
    "llff": lambda matrices: turned(matrices, [[0, 1, 0], [1, 0, 0], [0, 0, -1]]),
    "opencv": invert_rigid,
}
"""From the matrices of a file to the house convention, as the readers do it."""


@pytest.mark.parametrize(
    ("written", "file", "name"),
    [
        ("opengl", lambda c: c, "OpenCV axes where OpenGL"),
        ("opengl", lambda c: invert_rigid(turned(c, FLIP)), "world-to-camera matrices"),
        ("opengl", invert_rigid, "OpenCV's world-to-camera"),
        ("opengl", lambda c: turned(c, [[0, 1, 0], [1, 0, 0], [0, 0, -1]]), "LLFF's axes"),
        ("llff", lambda c: turned(c, FLIP), "OpenGL's axes"),
        ("llff", lambda c: c, "OpenCV's axes"),
        ("opencv", lambda c: c, "camera-to-world matrices"),
        ("opencv", lambda c: invert_rigid(turned(c, FLIP)), "OpenGL axes where OpenCV"),
        ("opencv", lambda c: turned(c, FLIP), "OpenGL's camera-to-world"),
    ],
)
def test_mixed_up_poses_are_named(written, file, name):
    true = arc()
    given = Cameras(true.intrinsics, READ[written](file(true.c2w)))
    verdict = judge(evidence(true, given), SIZE, written)
    assert not verdict.fine
    assert verdict.repaired is not None and name in verdict.repaired.name
    assert verdict.repaired_epipolar < 1


@pytest.mark.parametrize(
    ("mix_up", "name"),
    [
        (swapped_center, "swapped principal point"),
        (lambda c: focal(c, 0.5), "half the size"),
        (lambda c: focal(c, 2.0), "twice the size"),
        (lambda c: focal(c, 4.0), "four times the size"),
    ],
)
def test_mixed_up_intrinsics_are_named(mix_up, name):
    true = arc()
    verdict = judge(evidence(true, mix_up(true)), SIZE)
    assert not verdict.fine
    assert verdict.repaired is not None and name in verdict.repaired.name
    assert verdict.repaired_epipolar < 1


def test_cameras_of_another_scene_are_not_repaired():
    true = arc()
    shuffled = true[[3, 0, 5, 1, 4, 2]]
    verdict = judge(evidence(true, shuffled), SIZE)
    assert not verdict.fine and verdict.repaired is None


def test_depths_of_triangulated_points():
    true = arc(2)
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    pixels, depths = project(points, true)
    fit = fit_pair(pixels, true)
    assert fit.epipolar.max() < 1e-2 and fit.in_front == 1
    torch.testing.assert_close(fit.depths, depths, rtol=1e-3, atol=1e-3)


def test_a_camera_and_itself_give_finite_numbers():
    same = arc(2)[[0, 0]]
    pixels = torch.rand(2, 30, 2) * 400
    fit = fit_pair(pixels, same)
    assert fit.epipolar.isfinite().all() and fit.depths.isfinite().all()
