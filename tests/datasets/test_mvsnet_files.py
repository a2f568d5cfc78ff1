import numpy as np
import pytest
import torch

from datasets.formats.dtu import image_intrinsics
from datasets.formats.mvsnet_files import read_camera_file
from utils.errors import UserError

GOOD = """extrinsic
0.0 1.0 0.0 10.0
-1.0 0.0 0.0 20.0
0.0 0.0 1.0 600.0
0.0 0.0 0.0 1.0

intrinsic
2892.0 0.0 823.0
0.0 2883.0 619.0
0.0 0.0 1.0

425.0 2.5
"""
QUARTER = {"2892.0": "361.5", "2883.0": "360.375", "823.0": "82.875", "619.0": "66.375"}


def write(tmp_path, text):
    path = tmp_path / "00000007_cam.txt"
    path.write_text(text)
    return path


def replaced(text, replacements):
    for old, new in replacements.items():
        text = text.replace(old, new)
    return text


def test_full_size_file_by_hand(tmp_path):
    camera = read_camera_file(write(tmp_path, GOOD))
    # (823 + 0.5) / 2 - 80 = 331.75 and (619 + 0.5) / 2 - 44 = 265.75
    expected = [[1446.0, 0.0, 331.75], [0.0, 1441.5, 265.75], [0.0, 0.0, 1.0]]
    torch.testing.assert_close(image_intrinsics(camera, (512, 640)).tolist(), expected)
    assert (camera.near, camera.far) == (425.0, 905.0)
    assert camera.w2c[:3, 3].tolist() == [10.0, 20.0, 600.0]


def test_quarter_size_file_gives_the_same_camera(tmp_path):
    full = image_intrinsics(read_camera_file(write(tmp_path, GOOD)), (512, 640))
    # (823 / 2 - 80) / 4 = 82.875 and (619 / 2 - 44) / 4 = 66.375
    quarter_file = read_camera_file(write(tmp_path, replaced(GOOD, QUARTER)))
    torch.testing.assert_close(image_intrinsics(quarter_file, (512, 640)), full)


def test_file_of_the_size_of_a_small_image(tmp_path):
    text = replaced(GOOD, {"2892.0": "96", "2883.0": "96", "823.0": "40.5", "619.0": "30.5"})
    camera = read_camera_file(write(tmp_path, text))
    assert image_intrinsics(camera, (64, 80))[:2, 2].tolist() == [41.0, 31.0]


def test_refuses_intrinsics_of_another_image_size(tmp_path):
    camera = read_camera_file(write(tmp_path, GOOD))
    with pytest.raises(UserError, match=r"00000007_cam\.txt.*\(823, 619\).*80x64"):
        image_intrinsics(camera, (64, 80))


@pytest.mark.parametrize(
    ("line", "far"),
    [("425 2.5", 905), ("425 2.5 192", 905), ("425 2 100", 625), ("5 1 9 935", 935)],
)
def test_depth_range(tmp_path, line, far):
    camera = read_camera_file(write(tmp_path, GOOD.replace("425.0 2.5", line)))
    assert camera.far == far


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("extrinsic\n", "extrinsics\n", 1),
        ("10.0", "ten", 2),
        ("20.0\n", "\n", 3),
        ("20.0", "nan", 3),
        ("600.0", "inf", 4),
        ("0.0 1.0 0.0 10.0", "0.0 1.1 0.0 10.0", 2),
        ("-1.0 0.0 0.0 20.0", "1.0 0.0 0.0 20.0", 2),
        ("0.0 0.0 0.0 1.0", "0.0 0.0 0.0 2.0", 2),
        ("intrinsic\n2892", "\n2892", 8),
        ("2892.0", "-2892.0", 8),
        ("2892.0 0.0 823.0", "2892.0 0.0", 8),
        ("425.0 2.5", "425.0", 12),
        ("425.0 2.5", "425.0 -2.5", 12),
        ("425.0 2.5", "-425.0 2.5", 12),
        ("425.0 2.5", "425.0 2.5 192 905 7", 12),
        ("425.0 2.5\n", "425.0 2.5\n\n\nmore\n", 15),
    ],
)
def test_refusals_name_file_and_line(tmp_path, old, new, line):
    changed = GOOD.replace(old, new, 1)
    assert changed != GOOD
    with pytest.raises(UserError, match=rf"00000007_cam\.txt, line {line}: "):
        read_camera_file(write(tmp_path, changed))


def test_every_truncation_is_refused_or_whole(tmp_path):
    for kept in range(len(GOOD.rstrip()) - len("2.5")):
        with pytest.raises(UserError, match=r"00000007_cam\.txt"):
            read_camera_file(write(tmp_path, GOOD[:kept]))


def test_refuses_binary_and_endless_files(tmp_path):
    path = tmp_path / "bad_cam.txt"
    path.write_bytes(np.arange(256, dtype=np.uint8).tobytes())
    with pytest.raises(UserError, match=r"bad_cam\.txt"):
        read_camera_file(path)
    path.write_text("1.0 " * 100_000)
    with pytest.raises(UserError, match="larger than any camera file"):
        read_camera_file(path)
