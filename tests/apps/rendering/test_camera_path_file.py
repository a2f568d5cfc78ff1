"""Camera paths in the files of nerfstudio's viewer."""

import json
import math

import pytest
import torch

from apps.rendering.paths import TRANSFORMS_NAME, read_camera_path
from utils.cameras import Cameras
from utils.errors import UserError

GL = torch.diag(torch.tensor([1.0, -1, -1, 1]))


def some_path(count=5):
    angles = torch.linspace(0, 1, count)
    c2w = torch.eye(4).repeat(count, 1, 1)
    c2w[:, 0, 0] = c2w[:, 2, 2] = angles.cos()
    c2w[:, 0, 2], c2w[:, 2, 0] = angles.sin(), -angles.sin()
    c2w[:, :3, 3] = torch.stack([angles, 2 * angles, 3 - angles], -1)
    intrinsics = torch.tensor([[70.0, 0, 40], [0, 70, 30], [0, 0, 1]]).expand(count, 3, 3)
    return Cameras(intrinsics, c2w)


def test_nerfstudio_files_come_back_to_the_scene(tmp_path):
    """A file as the viewer of nerfstudio writes it: OpenGL axes, moved and scaled coordinates."""
    cameras = some_path(2)
    turn = torch.tensor([[0.0, 1, 0, 0.5], [0, 0, 1, -2], [1, 0, 0, 1]])
    scale = 0.25
    frames = []
    for c2w in cameras.c2w @ GL:
        moved = torch.cat([turn, torch.tensor([[0.0, 0, 0, 1]])]) @ c2w
        moved[:3, 3] *= scale
        frames.append({"camera_to_world": moved.flatten().tolist(), "fov": 50, "aspect": 1.5})
    content = {"camera_type": "perspective", "render_height": 1080, "render_width": 1920}
    content |= {"camera_path": frames, "fps": 24, "seconds": 4, "is_cycle": False}
    content["keyframes"] = [{"matrix": "[1,0,0]", "fov": 50, "aspect": 1.5, "properties": "[]"}]
    (tmp_path / "camera_path.json").write_text(json.dumps(content))
    (tmp_path / TRANSFORMS_NAME).write_text(
        json.dumps({"transform": turn.tolist(), "scale": scale})
    )
    read = read_camera_path(tmp_path / "camera_path.json", None, (60, 80))
    torch.testing.assert_close(read.cameras.c2w, cameras.c2w, atol=1e-5, rtol=0)
    focal = 540 / math.tan(math.radians(25))
    expected = torch.tensor([[focal, 0, 960], [0, focal, 540], [0, 0, 1]]).expand(2, 3, 3)
    torch.testing.assert_close(read.cameras.intrinsics, expected)
    assert read.size == (1080, 1920)
    smaller = read_camera_path(tmp_path / "camera_path.json", (108, 192), (60, 80))
    assert smaller.size == (108, 192)
    torch.testing.assert_close(smaller.cameras.intrinsics[0, 0, 0] * 10, expected[0, 0, 0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("{", "cannot be read as JSON"),
        ("[]", "no JSON object"),
        ("[" * 100_000, "cannot be read as JSON"),
        ({}, "must list frames"),
        ({"camera_path": []}, "must list frames"),
        ({"camera_path": [3]}, "frame 0: is not an object"),
        ({"camera_path": [{"camera_to_world": [1, 2]}]}, "4 x 4 numbers"),
        ({"camera_path": [{"camera_to_world": ["a"] * 16}]}, "4 x 4 numbers"),
        ({"camera_path": [{"camera_to_world": [float("nan")] * 16}]}, "not finite"),
        ({"camera_path": [{"camera_to_world": [0] * 16}]}, "no rotation"),
        (
            {"camera_path": [{"camera_to_world": torch.eye(4).flatten().tolist(), "fov": 200}]},
            "between 0 and 180",
        ),
    ],
)
def test_refusals_name_what_is_wrong(tmp_path, content, words):
    path = tmp_path / "path.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=words) as refused:
        read_camera_path(path, None, (60, 80))
    assert str(path) in str(refused.value)


def test_a_damaged_transform_is_refused(tmp_path):
    frames = [{"camera_to_world": matrix.flatten().tolist()} for matrix in some_path().c2w]
    (tmp_path / "path.json").write_text(json.dumps({"camera_path": frames}))
    assert read_camera_path(tmp_path / "path.json", None, (60, 80)).size == (60, 80)
    for content, words in (
        ({"transform": [[1.0, 0, 0, 0]] * 3, "scale": 1}, "cannot be undone"),
        ({"transform": torch.eye(4)[:3].tolist(), "scale": 0}, "positive"),
    ):
        (tmp_path / TRANSFORMS_NAME).write_text(json.dumps(content))
        with pytest.raises(UserError, match=words):
            read_camera_path(tmp_path / "path.json", None, (60, 80))
