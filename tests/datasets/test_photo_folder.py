"""Somebody's own pictures: turned ones, mixed sizes, videos."""

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.photos.files import scene_name
from datasets.photos.preparation import collect_photos, fit_photos
from utils.errors import UserError


def gradient(height, width):
    rows, columns = np.mgrid[:height, :width]
    channels = [rows * 255 / height, columns * 255 / width, np.full((height, width), 90)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def test_a_photo_on_its_side_is_set_upright(tmp_path):
    upright = gradient(40, 60)
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "ä b.png", exif=exif)
    photos = collect_photos(tmp_path, tmp_path / "out", 10)
    assert [photo.size for photo in photos] == [(40, 60), (40, 60)]
    assert photos[0].path == tmp_path / "a.png" and photos[1].path.parent == tmp_path / "out/images"
    images = fit_photos(photos, 60).images
    assert (images[0] - images[1]).abs().max() < 1e-6


def test_mixed_sizes_are_cut_to_one_aspect(tmp_path):
    for name, size in {"a": (40, 60), "b": (80, 120), "c": (60, 40)}.items():
        gradient(*size).save(tmp_path / f"{name}.png")
    photos = collect_photos(tmp_path, tmp_path / "out", 10)
    fitted = fit_photos(photos, 30)
    assert fitted.images.shape == (3, 3, 20, 30)
    assert fitted.crops == ((0, 0, 40, 60), (0, 0, 80, 120), (16, 0, 27, 40))
    assert (fitted.images[0] - fitted.images[1]).abs().max() < 0.03


def test_photos_are_spread_if_there_are_too_many(tmp_path, caplog):
    for number in range(9):
        gradient(8, 8).save(tmp_path / f"{number}.png")
    photos = collect_photos(tmp_path, tmp_path / "out", 3)
    assert [photo.path.stem for photo in photos] == ["1", "4", "7"]
    assert "3 of 9 photos" in caplog.text


def test_frames_of_a_video(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (48, 32))
    for number in range(6):
        writer.write(np.array(gradient(32, 48)) // (1 + number))
    writer.release()
    photos = collect_photos(tmp_path / "v.mp4", tmp_path / "out", 3)
    assert [photo.path.stem[-2:] for photo in photos] == ["01", "03", "05"]
    assert all(photo.size == (32, 48) for photo in photos)


def test_a_blurred_frame_gives_way_to_a_sharp_one_nearby_under_its_own_number(tmp_path):
    size = (48, 32)
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, size)
    noise = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
    for number in range(13):
        frame = noise // 2 + 8 * number
        writer.write(cv2.blur(frame, (5, 1)) if number == 4 else frame.astype(np.uint8))
    writer.release()
    photos = collect_photos(tmp_path / "v.avi", tmp_path / "out", 4)
    numbers = [int(photo.path.stem[-2:]) for photo in photos]
    assert numbers[0] == 1 and numbers[1] in (3, 5) and numbers[2:] == [8, 11]
    shown = [np.asarray(Image.open(photo.path)).mean() for photo in photos]
    steps = np.diff(shown) / np.diff(numbers)
    np.testing.assert_allclose(steps, 8, atol=1)


def test_what_are_no_pictures(tmp_path):
    def refused(folder, match):
        with pytest.raises(UserError, match=match):
            collect_photos(folder, tmp_path / "out", 3)

    refused(tmp_path, "has 0 photos")
    (tmp_path / "v.mp4").write_bytes(b"no video")
    refused(tmp_path / "v.mp4", r"v\.mp4: cannot read the video")
    refused(tmp_path / "absent", "no folder of photos")
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    refused(tmp_path, r"a\.jpg: cannot read the image")


def test_a_folder_keeps_the_dots_of_its_name(tmp_path):
    (tmp_path / "garden v1.2").mkdir()
    assert scene_name(tmp_path / "garden v1.2") == "garden v1.2"
    assert scene_name(tmp_path / "walk.mp4") == "walk"
