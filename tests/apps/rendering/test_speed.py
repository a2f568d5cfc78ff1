"""The benchmark of rendering counts every stage once."""

import json

from benchmarks import render_speed


def test_stages_add_up_to_the_frame(tiny_checkpoint, tiny_dtu, tmp_path):
    out = tmp_path / "speed.json"
    flags = ["--ckpt", tiny_checkpoint, "--datadir", tiny_dtu, "--accelerator", "cpu"]
    flags += ["--size", 64, 80, "--n_frames", 3, "--out", out]
    assert render_speed.main([str(flag) for flag in flags]) == 0
    figures = json.loads(out.read_text())
    spent = figures["milliseconds"]
    assert set(spent) == {
        *("frame, median", "encode", "sample", "field", "composite", "encode video")
    }
    assert all(value > 0 for value in spent.values())
    assert figures["size"] == [64, 80] and figures["device"] == "cpu"


def test_a_fine_tuned_scene_is_refused(tmp_path, caplog):
    flags = ["--ckpt", "scene/latest.tar", "--accelerator", "cpu", "--out", tmp_path / "speed.json"]
    assert render_speed.main([str(flag) for flag in flags]) == 2
    assert "--ckpt scene/latest.tar" in caplog.text and "general checkpoint" in caplog.text
