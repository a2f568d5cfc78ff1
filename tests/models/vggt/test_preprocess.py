from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.vggt.preprocess import PixelMapping, load_and_preprocess, network_size
from utils.cameras import Cameras, project
from utils.errors import UserError


def draw(path: Path, width: int, height: int, dot: tuple[int, int] | None = None) -> Path:
    pixels = np.zeros((height, width, 3), np.uint8)
    if dot:
        column, row = dot
        pixels[row : row + 2, column : column + 2] = 255
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("mode", ["crop", "pad", "resize"])
@pytest.mark.parametrize(("width", "height"), [(200, 150), (90, 110), (60, 61)])
def test_a_dot_lands_where_the_mapping_says(tmp_path: Path, mode: str, width: int, height: int):
    column, row = width // 3, height // 2 - 8
    files = [
        draw(tmp_path / "dot.png", width, height, (column, row)),
        draw(tmp_path / "wide.png", 200, 80),  # Another shape, so that a batch is padded.
    ]
    result = load_and_preprocess(files, mode, side=140)  # pyright: ignore
    image = result.images[0].mean(0)
    mapping = result.mappings[0]
    # White padding is cut away by looking only near where the dot should be.
    center = mapping.forward(torch.tensor([column + 1.0, row + 1.0]))
    rows, columns = torch.meshgrid(*map(torch.arange, image.shape), indexing="ij")
    near = (rows + 0.5 - center[1]).abs().maximum((columns + 0.5 - center[0]).abs()) < 8
    weight = image * near
    found = torch.stack([(weight * (columns + 0.5)).sum(), (weight * (rows + 0.5)).sum()])
    torch.testing.assert_close(found / weight.sum(), center, rtol=0, atol=0.1)
    assert weight.sum() > 0.3


def test_mapping_round_trip_and_intrinsics():
    mapping = PixelMapping(0.5, 0.75, 3.0, -7.0)
    pixels = torch.rand(5, 2, generator=torch.Generator().manual_seed(0)) * 100
    torch.testing.assert_close(mapping.inverse(mapping.forward(pixels)), pixels)
    intrinsics = torch.tensor([[100.0, 2.0, 50.0], [0.0, 110.0, 40.0], [0.0, 0.0, 1.0]])
    points = torch.rand(5, 3, generator=torch.Generator().manual_seed(1)) + 1
    photo = project(points, Cameras(intrinsics, torch.eye(4)))[0]
    network = project(points, Cameras(mapping.intrinsics(intrinsics), torch.eye(4)))[0]
    torch.testing.assert_close(mapping.forward(photo), network)


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([28, 280, 518]))
def test_network_size(height: int, width: int, long_side: int):
    new_height, new_width = network_size(height, width, long_side, 14)
    assert max(new_height, new_width) == long_side
    assert min(new_height, new_width) >= 14
    assert new_height % 14 == new_width % 14 == 0
    exact = min(height, width) * long_side / max(height, width)
    assert abs(min(new_height, new_width) - max(exact, 14)) <= 7 + 1e-9


def test_network_size_of_common_pictures():
    assert network_size(512, 640, 518, 14) == (420, 518)
    assert network_size(640, 512, 518, 14) == (518, 420)
    assert network_size(224, 280, 280, 14) == (224, 280)
    with pytest.raises(ValueError, match="500"):
        network_size(512, 640, 500, 14)


def test_resize_keeps_the_whole_picture(tmp_path: Path):
    result = load_and_preprocess([draw(tmp_path / "a.png", 100, 77)], "resize", side=140)
    assert tuple(result.images.shape) == (1, 3, 112, 140)
    corners = torch.tensor([[0.0, 0.0], [100.0, 77.0]])
    expected = torch.tensor([[0.0, 0.0], [140.0, 112.0]])
    torch.testing.assert_close(result.mappings[0].forward(corners), expected)


def test_transparency_becomes_white_and_grey_becomes_rgb(tmp_path: Path):
    Image.new("RGBA", (28, 28), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("L", (28, 28), 51).save(tmp_path / "grey.png")
    files = [tmp_path / "clear.png", tmp_path / "grey.png"]
    images = load_and_preprocess(files, "resize", side=28).images
    assert images[0].unique().tolist() == [1.0]
    assert images[1].unique().tolist() == pytest.approx([0.2])


@pytest.mark.parametrize("content", [b"", b"not an image", "truncated"])
def test_unreadable_images_are_named(tmp_path: Path, content: bytes | str):
    path = draw(tmp_path / "bad.png", 64, 64, (3, 4))
    path.write_bytes(path.read_bytes()[:60] if isinstance(content, str) else content)
    with pytest.raises(UserError, match=r"bad\.png"):
        load_and_preprocess([path])
    with pytest.raises(UserError, match=r"absent\.png"):
        load_and_preprocess([tmp_path / "absent.png"])
    with pytest.raises(UserError, match="no images"):
        load_and_preprocess([])
