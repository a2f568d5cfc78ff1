import torch

from datasets.views import Views
from utils.cameras import Cameras, project, unproject


def test_taken_views_keep_what_belongs_together():
    images = torch.rand(2, 3, 3, 4, 6)
    intrinsics = torch.diag(torch.tensor([5.0, 5.0, 1.0])).repeat(2, 3, 1, 1)
    c2w = torch.eye(4).repeat(2, 3, 1, 1)
    c2w[..., 0, 3] = torch.arange(6.0).view(2, 3)
    depths = torch.rand(2, 3, 4, 6) + 1
    views = Views(images, Cameras(intrinsics, c2w), depths, depths > 1.5)
    taken = views.take([2, 0])
    assert taken.images.shape == (2, 2, 3, 4, 6)
    pixel = torch.tensor([[3.5, 2.5]]).expand(2, 2, 1, 2)
    points = unproject(pixel, taken.depths[:, :, 2, 3, None], taken.cameras)
    whole = unproject(pixel[:, :1].expand(2, 3, 1, 2), depths[:, :, 2, 3, None], views.cameras)
    torch.testing.assert_close(points, whole[:, [2, 0]])
    torch.testing.assert_close(project(points, taken.cameras)[0], pixel)
    assert torch.equal(taken.images, images[:, [2, 0]])
    assert torch.equal(taken.masks, views.masks[:, [2, 0]])
