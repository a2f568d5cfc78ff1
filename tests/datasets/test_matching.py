"""Points triangulated from matches of local features."""

import torch

from datasets.matching import triangulate_pair, triangulate_views
from datasets.views import Views
from utils.cameras import Cameras, project

FOCAL, DEPTH, SHIFT = 100.0, 4.0, 10


def cameras_beside(baseline):
    """Two parallel cameras of 160x120."""
    intrinsics = torch.tensor([[FOCAL, 0, 80], [0, FOCAL, 60], [0, 0, 1.0]])
    c2w = torch.eye(4).repeat(2, 1, 1)
    c2w[:, :3, 3] = torch.tensor([1.0, 2.0, 3.0])
    c2w[1, 0, 3] += baseline
    return Cameras(intrinsics.expand(2, 3, 3), c2w)


def world_points(count):
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(count, 3, generator=generator)
    return spread * torch.tensor([2.0, 2.0, 2.0]) + torch.tensor([0.5, 1.0, 6.0])


def test_exact_matches_give_points_and_others_are_dropped():
    cameras, points = cameras_beside(0.5), world_points(30)
    pixels, _ = project(points, cameras)
    torch.testing.assert_close(triangulate_pair(pixels, cameras), points, rtol=0, atol=1e-4)
    pixels = pixels[:, :4].clone()
    pixels[1, 1, 1] += 3.0  # Off its epipolar line.
    pixels[1, 2, 0] += 60.0  # The rays part: they meet behind the cameras.
    kept = triangulate_pair(pixels, cameras)
    torch.testing.assert_close(kept, points[[0, 3]], rtol=0, atol=1e-4)
    narrow = cameras_beside(0.1)  # Angles that fix no depth.
    assert len(triangulate_pair(project(points, narrow)[0], narrow)) == 0


def test_a_wall_is_found_where_it_is():
    generator = torch.Generator().manual_seed(0)
    blobs = torch.rand(1, 1, 15, 23, generator=generator)
    wall = torch.nn.functional.interpolate(blobs, (120, 160 + SHIFT), mode="bicubic").clamp(0, 1)
    left, right = wall[0, 0, :, :160], wall[0, 0, :, SHIFT:]
    images = torch.stack([left, right])[:, None].expand(2, 3, 120, 160)
    cameras = cameras_beside(SHIFT * DEPTH / FOCAL)
    nothing = torch.zeros(2, 120, 160)
    seen = triangulate_views(Views(images, cameras, nothing, nothing == 0))
    for view, points in enumerate(seen):
        pixels, depths = project(points, cameras[view])
        assert len(points) > 20
        assert (depths / DEPTH - 1).abs().median() < 0.01
        assert ((pixels >= 0) & (pixels <= torch.tensor([160.0, 120.0]))).all()
    without_features = Views(torch.zeros(2, 3, 120, 160), cameras, nothing, nothing == 0)
    assert [len(points) for points in triangulate_views(without_features)] == [0, 0]
