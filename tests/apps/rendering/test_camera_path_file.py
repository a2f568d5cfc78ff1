"""Camera paths in the files of nerfstudio's viewer."""

import json
import math

import pytest
import torch

from apps.rendering.paths import TRANSFORMS_NAME, read_camera_path
from utils.errors import UserError

GL = torch.diag(torch.tensor([1.0, -1, -1, 1]))
EYE = torch.eye(4).tolist()


def test_nerfstudio_files_come_back_to_the_scene(tmp_path):
    """A file as the viewer of nerfstudio writes it: OpenGL axes, moved and scaled coordinates."""
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1] = torch.tensor([[0.6, 0, 0.8, 1], [0, 1, 0, 2], [-0.8, 0, 0.6, 2], [0, 0, 0, 1]])
    turn = torch.tensor([[0.0, 1, 0, 0.5], [0, 0, 1, -2], [1, 0, 0, 1]])
    scale = 0.25
    frames = []
    for c2w in poses @ GL:
        moved = torch.cat([turn, torch.tensor([[0.0, 0, 0, 1]])]) @ c2w
        moved[:3, 3] *= scale
        frames.append({"camera_to_world": moved.flatten().tolist(), "fov": 50, "aspect": 1.5})
    path, transform = tmp_path / "camera_path.json", {"transform": turn.tolist(), "scale": scale}
    content = {"camera_type": "perspective", "render_height": 1080, "render_width": 1920}
    content |= {"camera_path": frames, "fps": 24, "seconds": 4, "is_cycle": False}
    content["keyframes"] = [{"matrix": "[1,0,0]", "fov": 50, "aspect": 1.5, "properties": "[]"}]
    path.write_text(json.dumps(content))
    (tmp_path / TRANSFORMS_NAME).write_text(json.dumps(transform))
    read = read_camera_path(path, None, (60, 80))
    torch.testing.assert_close(read.cameras.c2w, poses, atol=1e-5, rtol=0)
    focal = 540 / math.tan(math.radians(25))
    expected = torch.tensor([[focal, 0, 960], [0, focal, 540], [0, 0, 1]]).expand(2, 3, 3)
    torch.testing.assert_close(read.cameras.intrinsics, expected)
    assert read.size == (1080, 1920)
    smaller = read_camera_path(path, (108, 192), (60, 80))
    assert smaller.size == (108, 192)
    torch.testing.assert_close(smaller.cameras.intrinsics[0, 0, 0] * 10, expected[0, 0, 0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        ("{", "cannot read the camera path"),
        ("[]", "which is a JSON object"),
        ("[" * 100_000, "cannot read the camera path"),
        ({}, "must list frames"),
        ({"camera_path": []}, "must list frames"),
        ({"camera_path": [3]}, "frame 0: is not an object"),
        ({"camera_path": [{"camera_to_world": [1, 2]}]}, "4 x 4 numbers"),
        ({"camera_path": [{"camera_to_world": ["a"] * 16}]}, "4 x 4 numbers"),
        ({"camera_path": [{"camera_to_world": [float("nan")] * 16}]}, "not finite"),
        ({"camera_path": [{"camera_to_world": [0] * 16}]}, "rotation of the pose is invalid"),
        ({"camera_path": [{"camera_to_world": EYE, "fov": 200}]}, "between 0 and 180"),
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
    content = {"camera_path": [{"camera_to_world": EYE}]}
    (tmp_path / "path.json").write_text(json.dumps(content))
    assert read_camera_path(tmp_path / "path.json", None, (60, 80)).size == (60, 80)
    for content, words in (
        ({"transform": [[1.0, 0, 0, 0]] * 3, "scale": 1}, "not a rotation"),
        ({"transform": [[2.0, 0, 0, 0], *EYE[1:3]], "scale": 1}, "not a rotation"),
        ({"transform": EYE[:3], "scale": 0}, "positive"),
    ):
        (tmp_path / TRANSFORMS_NAME).write_text(json.dumps(content))
        with pytest.raises(UserError, match=words):
            read_camera_path(tmp_path / "path.json", None, (60, 80))


def test_a_path_in_coordinates_of_a_map_is_exact(tmp_path):
    east = torch.tensor([543210.0, 5432109.0, 100.0], dtype=torch.float64)
    pose = GL.double().clone()
    pose[:3, 3] = east + torch.tensor([0.25, -1.5, 2.0])
    frames = [{"camera_to_world": pose.flatten().tolist(), "fov": 50}]
    (tmp_path / "path.json").write_text(json.dumps({"camera_path": frames}))
    read = read_camera_path(tmp_path / "path.json", (6, 8), (6, 8), east)
    expected = torch.tensor([0.25, -1.5, 2.0])
    torch.testing.assert_close(read.cameras.centers[0], expected, atol=1e-6, rtol=0)


def test_frames_too_large_for_memory_are_refused_unless_another_size_is_chosen(tmp_path):
    path = tmp_path / "camera_path.json"
    content = {"camera_path": [{"camera_to_world": EYE}], "render_height": 16384}
    path.write_text(json.dumps({**content, "render_width": 16384}))
    with pytest.raises(UserError, match=r"render_height=16384 and .*--size HEIGHT WIDTH"):
        read_camera_path(path, None, (60, 80))
    assert read_camera_path(path, (30, 40), (60, 80)).size == (30, 40)
