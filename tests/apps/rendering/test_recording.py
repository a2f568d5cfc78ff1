"""Camera paths recorded in the viewer."""

import json
import math
from unittest.mock import MagicMock

import pytest
import torch
import viser

from apps.rendering.path_recorder import PathRecorder, path_content, recorded_path
from apps.rendering.paths import read_camera_path
from apps.rendering.progressive import ProgressiveRenderer, Viewpoint


def view(x):
    c2w = torch.eye(4)
    c2w[0, 3], c2w[2, 3] = x, -4
    return Viewpoint(c2w, math.radians(50), 1.5)


def test_a_saved_path_is_read_again_as_it_was(painted_scene, tmp_path):
    path = recorded_path([view(-1.0), view(0.0), view(1.0)], painted_scene, 32)
    assert len(path.cameras.c2w) == 96
    torch.testing.assert_close(path.cameras.c2w[0], view(-1.0).c2w)
    torch.testing.assert_close(path.cameras.c2w[-1], view(1.0).c2w)
    origin = torch.tensor([4e5, 5e6, 100.0], dtype=torch.float64)
    (tmp_path / "path.json").write_text(json.dumps(path_content(path, origin)))
    again = read_camera_path(tmp_path / "path.json", None, (1, 1), origin)
    assert again.size == (32, 48)
    torch.testing.assert_close(again.cameras.c2w, path.cameras.c2w)
    torch.testing.assert_close(again.cameras.intrinsics, path.cameras.intrinsics)


@pytest.fixture
def event():
    client = MagicMock(spec=viser.ClientHandle)
    client.client_id = 3
    return viser.GuiEvent(client, 3, MagicMock())


def test_a_recorded_path_becomes_a_video(painted_scene, event, decode_video, tmp_path):
    recorder = PathRecorder(
        MagicMock(spec=viser.ViserServer, gui=MagicMock()), ProgressiveRenderer(painted_scene, 32)
    )
    recorder._request_video(event)
    assert "two or more views" in event.client.add_notification.call_args[0][1]
    for x in (-1.0, 1.0):
        recorder.views[3] = view(x)
        recorder._add(event)
    recorder._request_video(event)
    steps = 0
    while recorder.step():
        steps += 1
    name, content = event.client.send_file_download.call_args[0]
    assert name == "painted.mp4" and steps == 49
    (tmp_path / name).write_bytes(content)
    assert decode_video(tmp_path / name)[1].shape == (48, 32, 48, 3)


def test_a_video_that_fails_is_dropped(painted_scene, event):
    recorder = PathRecorder(
        MagicMock(spec=viser.ViserServer, gui=MagicMock()), ProgressiveRenderer(painted_scene, 32)
    )
    for x in (-1.0, 1.0):
        recorder.views[3] = view(x)
        recorder._add(event)
    recorder._request_video(event)
    object.__setattr__(painted_scene, "render", MagicMock(side_effect=RuntimeError("gone")))
    assert recorder.step() and not recorder.step()
