"""Windows of images, and what is read from them."""

import torch

from models.bundles import Window, whole_window


def test_bundles_hold_the_pixels_that_their_positions_name():
    window = Window(torch.tensor([[2, 3], [0, 1]]), (4, 5), side=2)
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    images = torch.stack([columns + 0.5, rows + 0.5]).expand(2, -1, -1, -1)
    cut = window.cut(images)
    assert cut.shape == (2, 2, 8, 10)
    assert cut[0, :, 0, 0].tolist() == [2.5, 3.5] and cut[1, :, -1, -1].tolist() == [9.5, 8.5]
    torch.testing.assert_close(window.to_bundles(cut), window.pixels().flatten(2))
    torch.testing.assert_close(
        window.to_bundles(cut).unflatten(2, (4, 2)).mean(2), window.centers()
    )


def test_an_image_is_put_together_from_its_bundles():
    window = whole_window((6, 9), 3, 2, torch.device("cpu"))
    images = torch.rand(2, 4, 6, 9)
    assert torch.equal(window.to_image(window.to_bundles(images)), images)


def test_the_whole_window_covers_images_that_bundles_do_not_divide():
    window = whole_window((7, 9), 2, 1, torch.device("cpu"))
    assert window.shape == (4, 5) and window.size == (8, 10)
