"""Images, masks and depth maps as files."""

import struct
from functools import partial

import numpy as np
import pytest
from PIL import Image

from datasets.formats.images.decoding import read_image, read_image_size, read_mask
from datasets.formats.images.depth_maps import read_pfm, write_pfm
from datasets.formats.images.image_files import ImageFinder, list_images
from datasets.formats.images.resizing import resize_nearest, resize_smooth
from utils.errors import UserError


@pytest.mark.parametrize(
    ("mode", "color", "background", "expected"),
    [
        ("RGBA", (255, 0, 51, 7), None, [1.0, 0.0, 0.2]),
        ("RGBA", (255, 0, 51, 0), 1.0, [1.0, 1.0, 1.0]),
        ("L", 51, None, [0.2, 0.2, 0.2]),
    ],
)
def test_alpha_and_grey(tmp_path, mode, color, background, expected):
    Image.new(mode, (4, 3), color).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", background)
    np.testing.assert_allclose(image[0, 0], expected, atol=1e-6)


def test_colours_size_and_truncation(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    assert read_image_size(path) == (30, 40)
    np.testing.assert_allclose(read_image(path), pixels / 255.0, atol=1e-6)
    whole = path.read_bytes()
    for kept in (0, 4, 20, 60, 200, 2000):
        path.write_bytes(whole[:kept])
        with pytest.raises(UserError, match=r"photo\.png"):
            read_image(path)


def test_refuses_missing_images_and_folders(tmp_path):
    with pytest.raises(UserError, match=r"none\.png: the image is missing"):
        read_image(tmp_path / "none.png")
    with pytest.raises(UserError, match=tmp_path.name):
        read_image(tmp_path)


def test_masks_and_resizing(tmp_path):
    Image.fromarray(np.array([[0, 10, 11, 255]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[False, False, True, True]]
    image = np.arange(16, dtype=np.float32).reshape(4, 4, 1).repeat(3, -1)
    np.testing.assert_allclose(resize_smooth(image, (2, 2))[..., 0], [[2.5, 4.5], [10.5, 12.5]])
    assert resize_smooth(image, (4, 4)) is image


def test_nearest_resize_by_either_pixel_centre():
    values = np.arange(8, dtype=np.float32)[None].repeat(2, 0)
    whole = partial(resize_nearest, integer_centers=True)
    assert whole(values, (1, 4))[0].tolist() == [0, 2, 4, 6]
    assert resize_nearest(values, (1, 4))[0].tolist() == [1, 3, 5, 7]
    quarter = np.array([[10.0, 20.0]], np.float32)
    assert whole(quarter, (4, 8))[0].tolist() == [10, 10, 20, 20, 20, 20, 20, 20]
    assert resize_nearest(quarter, (4, 8))[0].tolist() == [10] * 4 + [20] * 4


def test_only_visible_images_are_listed_by_number(tmp_path):
    for name in ["b10.JPG", "b9.png", "a.png", "._a.png", "notes.txt", "ä ö.jpeg"]:
        (tmp_path / name).touch()
    names = [path.name for path in list_images(tmp_path)]
    assert names == ["a.png", "b9.png", "b10.JPG", "ä ö.jpeg"]
    with pytest.raises(UserError, match=r"notes\.txt: cannot list the folder"):
        list_images(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("b10", "b10.JPG"),
        ("b10.jpg", "b10.JPG"),
        ("b10.png", "b10.JPG"),
        (".\\B10.Jpg", "b10.JPG"),
        ("a\u0308.png", "ä.png"),
        ("b1", None),
        ("none/b10", None),
        ("a\0b", None),
        ("x" * 5000, None),
    ],
)
def test_images_are_found_under_other_spellings(tmp_path, name, found):
    for file in ("b10.JPG", "ä.png"):
        (tmp_path / file).touch()
    assert ImageFinder(tmp_path)(name) == (found and tmp_path / found)


@pytest.mark.parametrize(("scale", "order"), [("-1.0", "<"), ("1", ">")])
def test_rows_of_a_pfm_run_upwards_in_either_byte_order(tmp_path, scale, order):
    path, values = tmp_path / "a.pfm", np.array([[1, 2], [3, 4]], np.float32)
    path.write_bytes(f"Pf\n2 2\n{scale}\n".encode() + struct.pack(f"{order}4f", 3, 4, 1, 2))
    np.testing.assert_array_equal(read_pfm(path), values)
    write_pfm(path, values)
    np.testing.assert_array_equal(read_pfm(path), values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a PFM"),
        (b"PNG\n2 2\n-1\n" + bytes(16), "not a PFM"),
        (b"PF\n2 2\n-1\n" + bytes(48), "colour"),
        (b"Pf\n2\n-1\n" + bytes(16), "malformed"),
        (b"Pf\n2 2\nlittle\n" + bytes(16), "malformed"),
        (b"Pf\n2 -2\n-1\n" + bytes(16), "impossible"),
        (b"Pf\n2 2\n0\n" + bytes(16), "impossible"),
        (b"Pf\n2 2\nnan\n" + bytes(16), "impossible"),
        (b"Pf\n2 2\n-1\n" + bytes(15), "16 bytes"),
        (b"Pf\n2 2\n-1\n" + bytes(17), "16 bytes"),
        (b"Pf\n2000000000 2000000000\n-1\n" + bytes(16), "declares"),
        (b"Pf" + b"1" * 10_000_000, "not a PFM"),
        (None, r"bad\.pfm"),
    ],
)
def test_refuses_what_is_no_depth_map(tmp_path, content, message):
    path = tmp_path / "bad.pfm"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_pfm(path)
    assert "bad.pfm" in str(error.value) and len(str(error.value)) < 500
