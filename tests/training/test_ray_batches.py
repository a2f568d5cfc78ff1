import torch

from datasets.views import Views
from models.training.ray_batches import draw_target_rays
from utils.cameras import Cameras, project


def coded_views(batch=2, targets=2, height=6, width=8):
    """Every pixel's colour, depth and mask tell where it is."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    scene = torch.arange(batch).reshape(batch, 1, 1, 1).expand(-1, targets, height, width)
    rgb = torch.stack([x / width + 0 * scene, y / height + 0 * scene, scene / 10], 2)
    intrinsics = torch.tensor([[8.0, 0, 4], [0, 8.0, 3], [0, 0, 1]]).expand(batch, targets, 3, 3)
    c2w = torch.eye(4).repeat(batch, targets, 1, 1)
    c2w[:, 1, 0, 3] = 5
    return Views(
        rgb.float(),
        Cameras(intrinsics, c2w),
        (x + 10.0 * y + 1).expand(batch, targets, height, width).clone(),
        ((x + y) % 2 == 0).expand(batch, targets, height, width).clone(),
    )


def test_rays_and_truth_belong_to_the_same_pixel():
    views = coded_views()
    rays, truth = draw_target_rays(views, 20, torch.Generator().manual_seed(0))
    assert rays.origins.shape == (2, 20, 3) and truth.rgb.shape == (2, 20, 3)
    for scene in range(2):
        for ray in range(20):
            target = 0 if ray < 10 else 1
            camera = Cameras(
                views.cameras.intrinsics[scene, target], views.cameras.c2w[scene, target]
            )
            point = rays.origins[scene, ray] + 2 * rays.directions[scene, ray]
            pixel, _ = project(point[None], camera)
            column, row = (pixel[0] - 0.5).round().int().tolist()
            torch.testing.assert_close(pixel[0] - 0.5, pixel[0].sub(0.5).round(), atol=1e-4, rtol=0)
            assert torch.equal(truth.rgb[scene, ray], views.images[scene, target, :, row, column])
            assert truth.depth[scene, ray] == views.depths[scene, target, row, column]
            assert truth.valid[scene, ray] == views.masks[scene, target, row, column]


def test_draws_cover_the_image():
    _, truth = draw_target_rays(coded_views(1, 2), 2000, torch.Generator().manual_seed(0))
    assert len(set(truth.depth.flatten().tolist())) == 48
