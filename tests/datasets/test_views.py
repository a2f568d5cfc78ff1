"""Views as tensors with cameras."""

from dataclasses import replace

import pytest
import torch

from utils.cameras import project, unproject


@pytest.mark.parametrize("size", [(16, 20), (21, 28), (64, 120)])
def test_resized_pictures_show_the_same_points_in_the_same_places(make_views, size):
    views = make_views(2, 3, size=(32, 40))
    depths = 2 + torch.rand(views.depths.shape)
    views = replace(views, depths=depths, masks=depths > 2.5)
    small = views.resized(size)
    assert small.size == size and small.images.shape == (2, 3, 3, *size)
    assert small.images.min() >= 0 and small.images.max() <= 1
    assert small.images.mean() == pytest.approx(float(views.images.mean()), abs=0.01)
    # A pixel of the new picture sees the point that lies at its place in the old one.
    row, column = size[0] // 2, size[1] // 3
    place = torch.tensor([[column + 0.5, row + 0.5]])
    points = unproject(place.expand(2, 3, 1, 2), torch.ones(2, 3, 1), small.cameras)
    pixels, _ = project(points, views.cameras)
    there = place[0] * torch.tensor([40 / size[1], 32 / size[0]])
    torch.testing.assert_close(pixels, there.expand(2, 3, 1, 2), rtol=0, atol=1e-4)
    # Depth and mask are those of one pixel.
    old_column, old_row = there.long()
    assert torch.equal(small.depths[..., row, column], depths[..., old_row, old_column])
    assert torch.equal(small.masks, small.depths > 2.5)
    assert torch.equal(views[0].resized(size).images, small.images[0])
    assert torch.equal(views.resized(views.size).images, views.images)
