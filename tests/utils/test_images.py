import imageio.v3 as imageio
import pytest
import torch

from utils.images import colorize, save_image


def test_saved_image_reads_back(tmp_path):
    image = torch.tensor([[[0.0, 1.0]], [[0.5, 0.2]], [[2.0, -1.0]]])
    save_image(tmp_path / "new" / "x.png", image)
    assert imageio.imread(tmp_path / "new" / "x.png").tolist() == [[[0, 128, 255], [255, 51, 0]]]
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["x.png"]


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
    save_image(tmp_path / "x.png", torch.zeros(3, 2, 2))

    def break_off(path, pixels):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("utils.images.imageio.imwrite", break_off)
    with pytest.raises(OSError, match="disk full"):
        save_image(tmp_path / "x.png", torch.ones(3, 2, 2))
    assert imageio.imread(tmp_path / "x.png").max() == 0


def test_colours_order_values_and_mark_unknown_ones_black():
    values = torch.tensor([[0.0, 1.0, 5.0], [torch.nan, torch.inf, -3.0]])
    colors = colorize(values, 0.0, 1.0, "gray")
    torch.testing.assert_close(colors[:, 0, 0], torch.zeros(3))
    torch.testing.assert_close(colors[:, 0, 1], torch.ones(3))
    torch.testing.assert_close(colors[:, 0, 2], torch.ones(3))
    assert (colors[:, 1] == 0).all()
    assert colorize(torch.zeros(2, 2), 3.0, 3.0).isfinite().all()
