"""The script from its flags to files that play."""

import json
import re

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from commands import status_of

import render_video
from apps.rendering import frames


@pytest.fixture
def render(tiny_checkpoint, tiny_dtu, tmp_path):
    """Run the script on the tiny DTU folder; returns its status."""

    def run(*argv, datadir=tiny_dtu):
        flags = ["--ckpt", tiny_checkpoint, "--device", "cpu", "--n_frames", 5]
        flags += ["--datadir", datadir] if datadir else []
        return status_of(render_video.main, *flags, *argv)

    return run


@pytest.mark.parametrize("path", ["spiral", "orbit", "ellipse", "interpolate", "dtu", "no data"])
def test_videos_play_everywhere(render, tmp_path, path, decode_video):
    out = tmp_path / "new folder" / "video.mp4"
    choice = {"datadir": None} if path == "no data" else {}
    flags = [] if path == "no data" else ["--path", path]
    assert render(*flags, "--out", out, "--size", 17, 21, "--fps", 5, **choice) == 0
    said, decoded = decode_video(out)
    assert re.search(r"Video: h264 \(.*yuv420p.* 5 fps", said), said
    assert decoded.shape == (5, 18, 22, 3)
    assert [file.name for file in out.parent.iterdir()] == ["video.mp4"]


def test_gif_and_folder_show_depth_beside_colour(render, tmp_path):
    size = ["--size", 32, 40]
    assert render("--out", tmp_path / "frames", "--depth", *size) == 0
    files = sorted((tmp_path / "frames").iterdir())
    assert [file.name for file in files] == [f"frame_{frame:05d}.png" for frame in range(5)]
    wide = imageio.imread(files[2])
    assert wide.shape[0] == 32 and wide.shape[1] > 90
    assert render("--out", tmp_path / "video.gif", *size) == 0
    shown = imageio.imread(tmp_path / "video.gif")
    assert shown.shape == (5, 32, 40, 3)
    assert np.abs(shown[2].astype(int) - wide[:, :40]).mean() < 12


def test_an_interrupted_video_is_finished_by_the_same_command(
    render, tmp_path, monkeypatch, caplog
):
    faded, calls = frames.render_cross_fade, []

    def stop_at_third(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return faded(*arguments)

    monkeypatch.setattr(frames, "render_cross_fade", stop_at_third)
    command = ["--out", tmp_path / "video.mp4", "--size", 16, 20]
    assert render(*command) == 130
    assert "2 of 5 frames are kept" in caplog.text
    assert render(*command) == 0
    assert len(calls) == 3 + 3
    assert [file.name for file in tmp_path.iterdir()] == ["video.mp4"]


def test_a_path_from_a_file_in_frames_too_low_for_a_labelled_bar(render, tmp_path, general):
    opengl = general.cameras.c2w[:3] * torch.tensor([1.0, -1, -1, 1])
    frames = [{"camera_to_world": c2w.flatten().tolist(), "fov": 40} for c2w in opengl]
    content = {"camera_path": frames, "render_height": 8, "render_width": 10}
    (tmp_path / "path.json").write_text(json.dumps(content))
    flags = ["--path", "file", "--path_file", tmp_path / "path.json"]
    assert render(*flags, "--out", tmp_path / "frames", "--depth") == 0
    assert len(list((tmp_path / "frames").iterdir())) == 3
    assert imageio.imread(tmp_path / "frames" / "frame_00000.png").shape == (8, 26, 3)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--out", "video.avi"], ["cannot write .avi", ".mp4 or .gif"]),
        (["--ckpt", "absent.ckpt"], ["absent.ckpt"]),
        (["--datadir", "absent"], ["absent", "--datadir"]),
        (["--scan", "scan77"], ["scan77"]),
        (["--sources", "99"], ["--sources 99", "no such view"]),
        (["--path", "zigzag"], ["invalid choice"]),
        (["--path", "file"], ["--path_file"]),
        (["--path", "file", "--path_file", "absent.json"], ["absent.json", "no such file"]),
        (["--near_far", "3", "2"], ["near_far"]),
        (["--size", "4", "4"], ["size"]),
        (["--fps", "0"], ["fps"]),
        (["--dataset_name", "llff"], ["poses_bounds.npy"]),
        (["--dataset_name", "procedural"], ["generated, not read"]),
    ],
)
def test_refusals_name_the_value(render, assert_refused, tmp_path, argv, words):
    assert_refused(render("--out", tmp_path / "video.mp4", *argv), words)
    assert not list(tmp_path.glob("*.mp4"))
