import imageio.v3 as imageio
import pytest
import torch

from utils.errors import UserError
from utils.images import colorize, from_bytes, save_image, save_small_image


def test_saved_image_reads_back(tmp_path):
    image = torch.tensor([[[0.0, 1.0]], [[0.5, 0.2]], [[2.0, -1.0]]])
    save_image(tmp_path / "new" / "x.png", image)
    assert imageio.imread(tmp_path / "new" / "x.png").tolist() == [[[0, 128, 255], [255, 51, 0]]]


def test_a_failed_write_leaves_the_old_picture_alone(tmp_path, monkeypatch):
    save_image(tmp_path / "x.png", torch.zeros(3, 2, 2))

    def break_off(image, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("PIL.Image.Image.save", break_off)
    with pytest.raises(UserError, match="disk full"):
        save_image(tmp_path / "x.png", torch.ones(3, 2, 2))
    assert imageio.imread(tmp_path / "x.png").max() == 0
    assert [file.name for file in tmp_path.iterdir()] == ["x.png"]


def test_colours_order_values_and_mark_unknown_ones_black():
    values = torch.tensor([[0.0, 1.0, 5.0], [torch.nan, torch.inf, -3.0]])
    colors = colorize(values, 0.0, 1.0, "gray")
    expected = torch.tensor([[0.0, 1, 1], [0, 0, 0]]).expand(3, 2, 3)
    torch.testing.assert_close(colors, expected)
    assert colorize(torch.zeros(2, 2), 3.0, 3.0).isfinite().all()


def test_small_pictures_lose_quality_before_they_are_refused(tmp_path):
    noise = torch.rand(3, 60, 80, generator=torch.Generator().manual_seed(0))
    sizes = []
    for most in (100_000, 4_000):
        save_small_image(tmp_path / "noise.jpg", noise, most)
        sizes.append((tmp_path / "noise.jpg").stat().st_size)
        assert sizes[-1] <= most
    assert sizes[1] < sizes[0]
    save_small_image(tmp_path / "noise.png", noise, 100_000)
    again = from_bytes(imageio.imread(tmp_path / "noise.png"))
    assert torch.equal(again, (noise * 255).round() / 255)
    for name in ("large.jpg", "large.png", "film.gif"):
        with pytest.raises(UserError, match=rf"{name}|\.gif"):
            save_small_image(tmp_path / name, noise, 1_000)
    assert {path.name for path in tmp_path.iterdir()} == {"noise.jpg", "noise.png"}
