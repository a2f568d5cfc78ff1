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


def write(tmp_path, text):
    path = tmp_path / "00000007_cam.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("numbers", "size", "expected"),
    [
        # (823 + 0.5) / 2 - 80 = 331.75 and (619 + 0.5) / 2 - 44 = 265.75
        ((2892, 2883, 823, 619), (512, 640), (1446, 1441.5, 331.75, 265.75)),
        # (823 / 2 - 80) / 4 = 82.875 and (619 / 2 - 44) / 4 = 66.375
        ((361.5, 360.375, 82.875, 66.375), (512, 640), (1446, 1441.5, 331.75, 265.75)),
        ((96, 96, 40.5, 30.5), (64, 80), (96, 96, 41, 31)),
    ],
    ids=["full size", "quarter size", "small image"],
)
def test_intrinsics_by_hand(tmp_path, numbers, size, expected):
    text = GOOD
    for old, new in zip(("2892.0", "2883.0", "823.0", "619.0"), numbers, strict=True):
        text = text.replace(old, str(new))
    camera = read_camera_file(write(tmp_path, text))
    found = image_intrinsics(camera, size)
    fx, fy, cx, cy = expected
    matrix = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=found.dtype)
    torch.testing.assert_close(found, matrix)
    assert (camera.near, camera.far) == (425.0, 905.0)
    assert camera.w2c[:3, 3].tolist() == [10.0, 20.0, 600.0]
    if numbers[0] == 2892:
        with pytest.raises(UserError, match=r"00000007_cam\.txt.*\(823, 619\).*80x64"):
            image_intrinsics(camera, (64, 80))
        long = read_camera_file(write(tmp_path, text.replace("2892", "1e9")))
        with pytest.raises(UserError, match=r"00000007_cam\.txt: a focal length of .* cannot"):
            image_intrinsics(long, size)


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
        ("425.0 2.5", "425.0 2.5 192 1e308", 12),
        ("425.0 2.5", "425.0 2.5 192 425.000001", 12),
        ("2892.0 0.0", "2892.0 2900.0", 8),
        ("600.0", "1e38", 4),
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
