import numpy as np
import pytest
from PIL import Image

from datasets.formats.images import (
    read_image,
    read_image_size,
    read_mask,
    resize_area,
    resize_nearest,
)
from utils.errors import UserError


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path, pixels


def test_reads_rgb_between_zero_and_one(photo):
    path, pixels = photo
    assert read_image_size(path) == (30, 40)
    np.testing.assert_allclose(read_image(path), pixels / 255.0, atol=1e-6)


def test_alpha_is_dropped_and_grey_becomes_rgb(tmp_path):
    Image.new("RGBA", (4, 3), (255, 0, 51, 7)).save(tmp_path / "a.png")
    Image.new("L", (4, 3), 51).save(tmp_path / "b.png")
    np.testing.assert_allclose(read_image(tmp_path / "a.png")[0, 0], [1.0, 0.0, 0.2], atol=1e-6)
    np.testing.assert_allclose(read_image(tmp_path / "b.png")[0, 0], [0.2, 0.2, 0.2], atol=1e-6)


@pytest.mark.parametrize("kept", [0, 4, 20, 60, 200, 2000])
def test_refuses_truncated_images(photo, kept):
    path, _ = photo
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"photo\.png"):
        read_image(path)


def test_refuses_flipped_bits_or_reads_the_right_size(photo):
    path, _ = photo
    content = path.read_bytes()
    for place in range(8, len(content), 97):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert read_image(path).ndim == 3
        except UserError as error:
            assert "photo.png" in str(error)


def test_refuses_missing_images_folders_and_sixteen_bits(tmp_path):
    with pytest.raises(UserError, match=r"none\.png: the image is missing"):
        read_image(tmp_path / "none.png")
    with pytest.raises(UserError, match=tmp_path.name):
        read_image(tmp_path)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(UserError, match="8-bit"):
        read_image(tmp_path / "deep.png")


def test_mask_counts_above_ten(tmp_path):
    Image.fromarray(np.array([[0, 10, 11, 255]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[False, False, True, True]]


def test_area_resize_takes_means():
    image = np.arange(16, dtype=np.float32).reshape(4, 4, 1).repeat(3, -1)
    np.testing.assert_allclose(resize_area(image, (2, 2))[..., 0], [[2.5, 4.5], [10.5, 12.5]])
    assert resize_area(image, (4, 4)) is image


def test_nearest_resize_keeps_whole_number_pixel_centres():
    values = np.arange(8, dtype=np.float32)[None].repeat(2, 0)
    assert resize_nearest(values, (1, 4))[0].tolist() == [0, 2, 4, 6]
    quarter = np.array([[10.0, 20.0]], np.float32)
    assert resize_nearest(quarter, (4, 8))[0].tolist() == [10, 10, 20, 20, 20, 20, 20, 20]
