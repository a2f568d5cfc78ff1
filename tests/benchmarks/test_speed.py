"""The speed of the model and of videos as users measure it."""

import json

from commands import status_of

from benchmarks import speed

STAGES = {"encode", "cost volume", "frame", "frame to CPU", "render", "write video"}


def run(*flags):
    return status_of(speed.main, *flags, "--device", "cpu", "--size", 32, 40)


def test_every_stage_is_timed(tiny_checkpoint, tmp_path, caplog):
    caplog.set_level("INFO")
    out = tmp_path / "speed.json"
    assert run("--ckpt", tiny_checkpoint, "--repeats", 2, "--out", out) == 0
    figures = json.loads(out.read_text())
    spent = figures["milliseconds"]["eager"]
    assert set(spent) == STAGES and list(figures["milliseconds"]) == ["eager"]
    assert all(value > 0 for stage, value in spent.items() if stage != "render")
    assert figures["size"] == [32, 40] and figures["device"] == "cpu"
    assert "40x32, 3 sources" in caplog.text


def test_a_fine_tuned_scene_is_refused(tmp_path, assert_refused):
    status = run("--ckpt", "scene/latest.tar", "--out", tmp_path / "speed.json")
    assert_refused(status, ["--ckpt scene/latest.tar", "general checkpoint"])
