"""From photos to everything in one command, which goes on where it was interrupted."""

import logging
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import status_of

from apps.reconstruction import run
from apps.reconstruction.config import ReconstructionConfig
from apps.reconstruction.plan import scaled_size
from apps.reconstruction.poses import write_poses
from apps.reconstruction.stages import Stages
from apps.rendering.config import VideoConfig
from apps.rendering.geometry_files import PointCloud
from datasets.formats.registry import open_scene
from reconstruct import main
from utils.config import parse_config


def test_photos_are_the_first_word_or_a_flag():
    assert parse_config(ReconstructionConfig, ["a b", "--out", "c"]).photos == "a b"
    assert parse_config(ReconstructionConfig, ["--photos", "a"]).photos == "a"
    with pytest.raises(SystemExit):
        parse_config(ReconstructionConfig, [])


def test_a_finished_stage_is_not_done_again(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    times = {"one": 10.0, "two": 300.0}
    output, calls = tmp_path / "made", []

    def make():
        calls.append(1)
        output.write_text("")
        return "made it"

    stages = Stages.opened(tmp_path, "job", times)
    assert stages.run("one", make, (output,)) == "made it"
    assert "[1/2] one: about 10 s, about 5 min for the remaining stages" in caplog.text
    assert Stages.opened(tmp_path, "job", times).run("one", make, (output,)) == "made it"
    assert len(calls) == 1 and "one: already done" in caplog.text
    output.unlink()
    Stages.opened(tmp_path, "job", times).run("one", make, (output,))
    Stages.opened(tmp_path, "another job", times).run("one", make, (output,))
    (tmp_path / "stages.json").write_text("damaged")
    Stages.opened(tmp_path, "job", times).run("one", make, (output,))
    assert len(calls) == 4 and "all stages run again" in caplog.text


def test_pictures_keep_the_shape_of_the_photos():
    assert scaled_size((721, 960), 256) == (192, 256)
    assert scaled_size((960, 540), 160) == (160, 88)


@pytest.mark.parametrize("name", ["transforms", "colmap"])
def test_other_programs_find_the_same_cameras(layouts, tmp_path, name):
    scene = open_scene("transforms", layouts["transforms"])
    cloud = PointCloud(torch.rand(30, 3) + torch.tensor([0.0, 0, 600]), torch.rand(30, 3))
    assert "8 photos" in write_poses(scene, cloud, tmp_path)
    read = open_scene(name, tmp_path)
    torch.testing.assert_close(read.cameras.c2w, scene.cameras.c2w, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(read.cameras.intrinsics, scene.cameras.intrinsics)
    difference = np.abs(read.read_view(3).image - scene.read_view(3).image)
    assert difference.mean() < 0.1
    if name == "transforms":
        torch.testing.assert_close(read.near_far, scene.near_far)


def test_what_cannot_be_reconstructed_is_refused_at_once(tmp_path, assert_refused):
    assert_refused(status_of(main, tmp_path / "none"), ["no such data folder"])
    (tmp_path / "notes.txt").write_text("")
    assert_refused(status_of(main, tmp_path), ["holds no photos"])
    assert_refused(status_of(main, tmp_path, "--dataset_name", "procedural"), ["generated, not"])


def test_all_stages_and_the_lines_to_type_next(
    plane_photos, tiny_checkpoint, tmp_path, monkeypatch, caplog, decode_video
):
    caplog.set_level(logging.INFO)
    out = tmp_path / "made here"
    words = [plane_photos, "--out", out, "--ckpt", tiny_checkpoint, "--n_frames", 2]
    words += ["--size", 48, 64, "--n_views", 2]

    def interrupted(config):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "run_export", interrupted)
        assert status_of(main, *words) == 130
    assert decode_video(out / "video.mp4")[1].shape[0] == 2
    caplog.clear()
    assert status_of(main, *words) == 0
    said = caplog.text
    assert said.count("already done") == 4 and "[5/6] geometry" in said
    assert (out / "poses/transforms.json").is_file() and (out / "check.png").is_file()
    (line,) = [line for line in said.splitlines() if "render_video.py" in line]
    flags = shlex.split(line.partition("render_video.py")[2].rpartition("  (")[0])
    larger = parse_config(VideoConfig, flags)
    assert larger.camera_path.size == (96, 128) and larger.scene.datadir == str(plane_photos)


def test_a_scene_is_trained_on_first(plane_photos, tiny_checkpoint, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(run, "run_export", lambda config: "no geometry here")
    words = ["--ckpt", tiny_checkpoint, "--n_frames", 2, "--size", 48, 64, "--n_views", 2]
    words += ["--finetune", 0.5]
    monkeypatch.chdir(plane_photos)
    assert status_of(main, ".", "--out", "../out", *words) == 0
    (tmp_path / "out/video.mp4").unlink()
    monkeypatch.chdir(tmp_path)
    caplog.clear()
    assert status_of(main, plane_photos.name, "--out", "out", *words) == 0
    assert caplog.text.count("already done") == 5 and (tmp_path / "out/video.mp4").is_file()
    (scene,) = Path("out/fine_tuning").glob("*/*/ckpts/latest.tar")
    (line,) = [line for line in caplog.text.splitlines() if "view.py" in line]
    assert f"--ckpt {shlex.quote(str(scene))}" in line and "--datadir" not in line
    assert "ignoring" not in caplog.text
