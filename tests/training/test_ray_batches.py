import torch

from datasets.views import Views
from training.config import RayBatchConfig
from training.ray_batches import draw_target_rays
from utils.cameras import Cameras


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


CONFIG = RayBatchConfig(patch_size=3, patch_share=0.5)


def test_pixels_and_truth_belong_together():
    views = coded_views()
    truth = draw_target_rays(views, 20, CONFIG, torch.Generator().manual_seed(0))
    assert truth.pixels.shape == (2, 2, 20, 2) and truth.rgb.shape == (2, 2, 20, 3)
    for scene in range(2):
        for target in range(2):
            for ray in range(20):
                pixel = truth.pixels[scene, target, ray] - 0.5
                column, row = pixel.int().tolist()
                assert pixel.tolist() == [column, row]
                place = (scene, target, ray)
                expected = views.images[scene, target, :, row, column]
                assert torch.equal(truth.rgb[place], expected)
                assert truth.depth[place] == views.depths[scene, target, row, column]
                assert truth.valid[place] == views.masks[scene, target, row, column]


def test_draws_cover_the_image():
    generator = torch.Generator().manual_seed(0)
    for share in (0.0, 1.0):
        truth = draw_target_rays(coded_views(1, 2), 1800, RayBatchConfig(3, share), generator)
        assert truth.num_patches == (200 if share else 0)
        assert len(set(truth.depth.flatten().tolist())) == 48


def test_patches_are_contiguous_squares():
    truth = draw_target_rays(coded_views(), 20, CONFIG, torch.Generator().manual_seed(0))
    assert truth.num_patches == 1
    patches = truth.patches(truth.rgb)
    assert patches.shape == (4, 3, 3, 3)
    torch.testing.assert_close(patches[:, 0].diff(dim=2), torch.full((4, 3, 2), 1 / 8))
    torch.testing.assert_close(patches[:, 1].diff(dim=1), torch.full((4, 2, 3), 1 / 6))
    assert not truth.whole_patches().any()


def test_small_images_have_no_patches():
    config = RayBatchConfig(patch_size=16, patch_share=1.0)
    truth = draw_target_rays(coded_views(), 512, config, torch.Generator().manual_seed(0))
    assert truth.num_patches == 0 and truth.pixels.shape[2] == 512
