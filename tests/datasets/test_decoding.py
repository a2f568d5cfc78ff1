"""Photographs of every kind are read as what they show, or refused with the true reason."""

import resource
import struct
import zlib

import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from datasets.formats.images import decoding
from datasets.formats.images.decoding import (
    read_channels,
    read_header,
    read_image,
    read_image_size,
    read_mask,
)
from datasets.formats.images.depth_maps import DepthFile, read_depth
from datasets.formats.images.lenses import Lens
from datasets.formats.images.photos import Photo, PhotoReader
from datasets.photos.preparation import collect_photos, fit_photos
from utils.errors import UserError

GREY = np.linspace(0, 255, 40 * 60).reshape(40, 60).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], np.full_like(GREY, 90)], -1)


def deep(values):
    return values.astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("name", "image", "shown"),
    [
        ("grey.png", Image.fromarray(GREY), GREY),
        ("deep.png", Image.fromarray(deep(GREY)), GREY),
        ("deep.tif", Image.fromarray(deep(GREY)), GREY),
        ("float.tif", Image.fromarray((GREY / 255).astype(np.float32)), GREY),
        ("alpha.png", Image.merge("LA", [Image.fromarray(GREY)] * 2), None),
        ("palette.png", Image.fromarray(COLOUR).quantize(64), None),
        ("one.png", Image.fromarray(GREY > 99), (GREY > 99) * 255),
        ("progressive.png", Image.fromarray(COLOUR), COLOUR),
    ],
)
def test_kinds_of_photos(tmp_path, name, image, shown):
    image.save(tmp_path / name)
    read = read_image(tmp_path / name)
    assert read.shape == (40, 60, 3) and read.dtype == np.float32
    if shown is None:
        shown = np.asarray(image.convert("RGB"))
    expected = shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, -1)
    np.testing.assert_allclose(read, expected / 255, atol=1e-6)


def test_lossy_and_deep_colours(tmp_path):
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    Image.fromarray(COLOUR).save(tmp_path / "steps.jpg", quality=95, progressive=True)
    cv2.imwrite(str(tmp_path / "deep.tif"), deep(COLOUR)[..., ::-1])
    cv2.imwrite(str(tmp_path / "deep.png"), deep(COLOUR)[..., ::-1])
    heif = pillow_heif.from_pillow(Image.fromarray(COLOUR))
    heif.save(tmp_path / "photo.HEIC", quality=95)
    for path in sorted(tmp_path.iterdir()):
        assert read_image_size(path) == (40, 60)
        assert np.abs(read_image(path) - COLOUR / 255).mean() < 0.02, path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_turns_a_photo_unless_its_camera_does_not(tmp_path, orientation, suffix):
    undo = {
        **{2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180},
        **{4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE},
        **{6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE},
        **{8: Image.Transpose.ROTATE_270},
    }
    upright = Image.fromarray(COLOUR)
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{suffix}"
    stored.save(path, exif=exif)
    assert read_header(path).upright == (40, 60)
    assert np.abs(read_image(path) - COLOUR / 255).mean() < 0.02
    if suffix != "tif":
        aside = read_channels(path, keep_alpha=False, upright=False)
        assert np.abs(aside - np.asarray(stored) / 255).mean() < 0.02


def test_what_cannot_be_shown_is_refused_for_what_it_is(tmp_path, monkeypatch):
    def refused(name, match):
        with pytest.raises(UserError, match=rf"{name}.*{match}"):
            read_image(tmp_path / name)

    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "depth.tif")
    refused("depth.tif", "grey values from 0 to 255, and the file does not say which")
    Image.fromarray(GREY.astype(np.int32) - 5).save(tmp_path / "negative.tif")
    refused("negative.tif", "grey values from -5 to 250")
    cv2.imwrite(str(tmp_path / "hdr.tif"), (COLOUR / 255).astype(np.float32))
    refused("hdr.tif", "holds float32 values of 3 channels, which are not read")
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x1cftypheic" + bytes(100))
    refused("a.heic", "damaged or not an image; copy or unpack it again, or convert it to JPEG")
    monkeypatch.setattr(decoding, "_MAX_PIXELS", 1000)
    Image.fromarray(GREY).save(tmp_path / "large.png")
    refused(
        "large.png", "60x40 pixels, more than the limit of .* for files of this kind; shrink it"
    )


@pytest.mark.parametrize(
    ("values", "counted"),
    [
        ([0, 10, 11, 255], [False, False, True, True]),
        ([0, 1, 1, 0], [False, True, True, False]),
        ([0, 2, 0, 3], [False, True, False, True]),
        ([0, 0, 0, 0], [False] * 4),
    ],
)
def test_masks_of_any_range(tmp_path, values, counted):
    for kind in (np.uint8, np.uint16):
        Image.fromarray(np.array([values], kind)).save(tmp_path / "mask.png")
        assert read_mask(tmp_path / "mask.png")[0].tolist() == counted


@pytest.mark.parametrize("name", ["large.jpg", "large.png"])
def test_large_photos_are_shrunk_while_they_are_read(tmp_path, monkeypatch, name):
    big = cv2.resize(COLOUR, (600, 400), interpolation=cv2.INTER_LINEAR)
    Image.fromarray(big).save(tmp_path / name, quality=95)
    whole = read_image(tmp_path / name)
    lens = Lens("perspective", (500.0, 500.0), (300.0, 200.0), (-0.2, 0.0, 0.0, 0.0, 0.0))
    photo = Photo(tmp_path / name, (400, 600), lens.intrinsics, lens)
    reader = PhotoReader((photo,), (40, 60), 1.0)
    exact = reader(0)
    monkeypatch.setattr(decoding, "_SHRINK_PIXELS", 1000)
    small = read_image(tmp_path / name, min_size=(40, 60))
    assert 40 <= small.shape[0] <= 50
    area = cv2.resize(whole, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small - area).mean() < 0.02
    shrunk = reader(0)
    assert np.abs(shrunk.image - exact.image).mean() < 0.02
    assert (shrunk.mask == exact.mask).mean() > 0.95


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["RGBA", "I;16"])
def test_large_photos_are_averaged_and_turned(tmp_path, monkeypatch, orientation, mode):
    values = np.random.default_rng(0).integers(0, 256, (126, 210, 4)).astype(np.uint8)
    values[..., 3] = 255
    image = Image.fromarray(values) if mode == "RGBA" else Image.fromarray(deep(values[..., 0]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    whole = read_image(tmp_path / "a.png", 1.0)
    least = (32, 20) if orientation == 6 else (20, 32)
    monkeypatch.setattr(decoding, "_SHRINK_PIXELS", 1000)
    monkeypatch.setattr(decoding, "_BAND_ROWS", 40)
    small = read_image(tmp_path / "a.png", 1.0, min_size=least)
    assert small.shape[:2] == ((35, 21) if orientation == 6 else (21, 35))
    area = cv2.resize(whole, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(small, area, atol=0.004)


def test_a_png_of_few_bytes_and_many_pixels_takes_bounded_memory(tmp_path):
    path = tmp_path / "a.png"
    Image.new("L", (13000, 13000)).save(path)
    assert path.stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_image(path, min_size=(64, 64)).max() == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_images_are_refused_by_the_pixels_that_they_declare(tmp_path):
    path = tmp_path / "a.png"
    Image.new("L", (1, 1)).save(path)
    content = bytearray(path.read_bytes())
    for width, height, mode, read in (
        (23000, 23000, 2, read_image),
        (12, 16_000_000, 2, read_image),
        (13000, 13000, 6, read_mask),
        (13000, 13000, 0, lambda path: read_depth(DepthFile(path))),
    ):
        header = struct.pack(">IIBBBBB", width, height, 16 if mode == 0 else 8, mode, 0, 0, 0)
        content[16:29] = header
        content[29:33] = struct.pack(">I", zlib.crc32(b"IHDR" + header))
        path.write_bytes(content)
        with pytest.raises(
            UserError, match=f"a.png: the image has {width}x{height} pixels, (more|a sha)"
        ):
            read(path)


def test_two_hundred_megapixels_take_bounded_memory(tmp_path):
    for number in range(2):
        Image.new("RGB", (16320, 12240), (90, 120, 60)).save(tmp_path / f"{number}.jpg", quality=20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images = fit_photos(collect_photos(tmp_path, tmp_path / "out", 2), 64).images
    assert images.shape == (2, 3, 48, 64) and abs(images[0, 1].mean() - 120 / 255) < 0.01
    # Decoded whole, one photo alone would take 600 MB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_photos_in_folders_and_of_telephones(tmp_path, caplog):
    for place in ("left", "right/a"):
        (tmp_path / place).mkdir(parents=True)
        heif = pillow_heif.from_pillow(Image.fromarray(COLOUR))
        heif.save(tmp_path / place / "IMG_1.HEIC")
    (tmp_path / "IMG_2.DNG").write_bytes(b"raw")
    photos = collect_photos(tmp_path, tmp_path / "estimated", 8)
    names = [photo.path.relative_to(tmp_path).as_posix() for photo in photos]
    folder = "estimated/images"
    assert names == [f"{folder}/left_IMG_1_HEIC.png", f"{folder}/right_a_IMG_1_HEIC.png"]
    assert np.abs(read_image(photos[0].path) - COLOUR / 255).mean() < 0.02
    assert "1 files in unsupported formats are left out (IMG_2.DNG)" in caplog.text
    # What was written there is not taken for photos the next time.
    assert len(collect_photos(tmp_path, tmp_path / "estimated", 8)) == 2


def test_deep_photos_without_cameras_are_not_white(tmp_path):
    for number in range(2):
        Image.fromarray(deep(GREY)).save(tmp_path / f"{number}.png")
    images = fit_photos(collect_photos(tmp_path, tmp_path / "out", 2), 60).images
    assert 0.4 < images.mean() < 0.6 and images.std() > 0.2


@pytest.mark.parametrize(
    ("mode", "left", "right"),
    [
        ("LA", (255, 0), (255, 255)),
        ("RGBA", (0, 0, 0, 0), (0, 0, 0, 255)),
        ("RGBA", (255, 255, 255, 0), (255, 255, 255, 255)),
        ("RGB", (0, 0, 0), (0, 0, 1)),
        ("RGB", (0, 0, 0), (0, 0, 200)),
    ],
)
def test_masks_in_colours_and_in_alpha(tmp_path, mode, left, right):
    image = Image.new(mode, (2, 1), left)
    image.putpixel((1, 0), right)
    image.save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png")[0].tolist() == [False, True]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"", "is damaged or not an image"),
    ],
)
@pytest.mark.parametrize("name", ["photo.png", "photo.tif"])
def test_what_stands_in_place_of_a_photo(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: .*{told}"):
        read_image(tmp_path / name)


def test_photos_that_cameras_wrote_raw_are_not_shown_by_their_preview(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "photo.DNG", format="TIFF")
    with pytest.raises(UserError, match=r"photo\.DNG: \.DNG is not read; convert"):
        read_image(tmp_path / "photo.DNG")


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "MPO", "jp2", "ppm", "tga"])
def test_photos_of_rarer_suffixes(tmp_path, suffix):
    for number in (10, 9):
        Image.fromarray(COLOUR).save(tmp_path / f"{number}.{suffix}", "JPEG")
    photos = collect_photos(tmp_path, tmp_path / "out", 9)
    assert [photo.path.stem.partition("_")[0] for photo in photos] == ["9", "10"]
