"""The script from its flags to files that play."""

import json
import re
import subprocess

import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
import pytest
import torch

import render_video
from apps.rendering import frames


@pytest.fixture
def render(tiny_checkpoint, tiny_dtu, tmp_path):
    """Run the script on the tiny DTU folder; returns its status."""

    def run(*argv, datadir=tiny_dtu):
        flags = ["--ckpt", tiny_checkpoint, "--device", "cpu", "--n_frames", 5]
        flags += ["--datadir", datadir] if datadir else []
        try:
            return render_video.main([str(text) for text in [*flags, *argv]])
        except SystemExit as stop:
            return stop.code

    return run


def describe(path):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    return subprocess.run(command, capture_output=True, text=True).stderr


@pytest.mark.parametrize("path", ["spiral", "orbit", "ellipse", "interpolate", "dtu"])
def test_videos_play_everywhere(render, tmp_path, path):
    out = tmp_path / "new folder" / "video.mp4"
    assert render("--path", path, "--out", out, "--size", 17, 21, "--fps", 5) == 0
    said = describe(out)
    assert re.search(r"Video: h264 \(.*yuv420p.* 22x18.* 5 fps", said), said
    assert imageio_ffmpeg.count_frames_and_secs(str(out))[0] == 5
    assert [file.name for file in out.parent.iterdir()] == ["video.mp4"]


def test_gif_and_folder_show_depth_beside_colour(render, tmp_path):
    size = ["--size", 32, 40]
    assert render("--out", tmp_path / "frames", "--depth", *size) == 0
    names = sorted(file.name for file in (tmp_path / "frames").iterdir())
    assert names == [f"frame_{frame:05d}.png" for frame in range(5)]
    wide = imageio.imread(tmp_path / "frames" / names[0])
    assert wide.shape[0] == 32 and wide.shape[1] > 90
    assert render("--out", tmp_path / "video.gif", *size) == 0
    shown = imageio.imread(tmp_path / "video.gif")
    assert shown.shape == (5, 32, 40, 3)
    colours = imageio.imread(tmp_path / "frames" / names[2])[:, :40]
    assert np.abs(shown[2].astype(int) - colours).mean() < 12


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


def test_a_path_from_a_file(render, tmp_path, general):
    opengl = general.cameras.c2w[:3] * torch.tensor([1.0, -1, -1, 1])
    frames = [{"camera_to_world": c2w.flatten().tolist(), "fov": 40} for c2w in opengl]
    content = {"camera_path": frames, "render_height": 16, "render_width": 20}
    (tmp_path / "path.json").write_text(json.dumps(content))
    flags = ["--path", "file", "--path_file", tmp_path / "path.json"]
    assert render(*flags, "--out", tmp_path / "frames") == 0
    assert len(list((tmp_path / "frames").iterdir())) == 3
    assert imageio.imread(tmp_path / "frames" / "frame_00000.png").shape == (16, 20, 3)


def test_without_data_a_procedural_world_is_shown(render, tmp_path):
    out = tmp_path / "world.mp4"
    assert render("--out", out, "--size", 16, 20, datadir=None) == 0
    assert imageio_ffmpeg.count_frames_and_secs(str(out))[0] == 5


def test_frames_too_low_for_a_labelled_bar_have_depth_beside_them(render, tmp_path):
    assert render("--out", tmp_path / "frames", "--depth", "--size", 8, 10, "--n_frames", 1) == 0
    assert imageio.imread(tmp_path / "frames" / "frame_00000.png").shape[:2] == (8, 26)


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
        (["--dataset_name", "procedural"], ["made, not read"]),
    ],
)
def test_refusals_name_the_value(render, capsys, caplog, tmp_path, argv, words):
    status = render("--out", tmp_path / "video.mp4", *argv)
    said = capsys.readouterr().err + caplog.text
    assert status == 2 and not list(tmp_path.glob("*.mp4"))
    assert all(word in said for word in words), said


def test_sources_are_read_about_as_large_as_frames(tiny_dtu):
    from apps.rendering.config import SceneChoice
    from apps.rendering.open_scene import open_photographs

    for wanted, size in ((None, (64, 80)), ((64, 80), (64, 80)), ((30, 40), (32, 40))):
        scene = open_photographs(SceneChoice(datadir=str(tiny_dtu)), wanted)
        assert scene.image_size == size and scene.unit.name == "mm"
    assert torch.allclose(scene.near_far * scene.unit.factor, torch.tensor([425.0, 1.5 * 905.0]))
