"""Comparison of general models and fine-tuned scenes: from the flags to table and pictures."""

import json
import re

import pytest
import torch
from PIL import Image

from apps import compare
from evaluation import pictures
from training.training_scenes import TrainingScenes


@pytest.fixture
def strips(run_main, general_checkpoint, tiny_dtu, tmp_path):
    """Run the script; returns its status and what it said."""

    def run(*argv, ckpt=(general_checkpoint,), datadir=tiny_dtu):
        flags = ["--ckpts", *ckpt, "--device", "cpu", "--out", tmp_path / "out"]
        flags += ["--datadir", datadir] if datadir else []
        return run_main(compare.main, *flags, *argv)

    return run


@pytest.fixture
def tuned(finetune, tmp_path):
    assert finetune(num_steps=1) == 0
    return tmp_path / "runs/scan2/vggt_finetune_scan2/ckpts/latest.tar"


@pytest.fixture
def labels(monkeypatch):
    """What is written over the pictures, row by row."""
    seen = []

    def keep(rows):
        seen.extend([[panel.label if panel else None for panel in row] for row in rows])
        return real(rows)

    real = pictures.contact_sheet
    monkeypatch.setattr(pictures, "contact_sheet", keep)
    return seen


def test_one_model_makes_a_strip_of_each_view(strips, labels, tmp_path, caplog):
    caplog.set_level("INFO")
    assert strips("--targets", 5, 2, "--names", "ours", "--pictures", "png")[0] == 0
    figures = json.loads((tmp_path / "out" / "comparison.json").read_text())["models"]["ours"]
    assert [view["view"] for view in figures["scenes"]["scan2"]["views"]] == [5, 2]
    assert 3 < figures["mean"]["psnr"] < 40 and "scan2, ours" in caplog.text
    assert len(labels) == 2
    for row, view in zip(labels, (5, 2), strict=True):
        text = " | ".join(row)
        assert re.fullmatch(
            rf"(source \d \| ){{3}}truth, view {view} \| ours, [\d.]+ dB \| error \| depth \| "
            r"true depth \| ",
            text,
        ), text
        assert f"source {view}" not in row
    with Image.open(tmp_path / "out" / "scan2.png") as picture:
        assert picture.width > 8 * 80 and picture.height > 2 * 64


def test_a_fine_tuned_scene_beside_the_general_model(
    strips, tuned, labels, general_checkpoint, caplog
):
    """The scene knows its data and its test views; every model has a column."""
    caplog.set_level("INFO")
    flags = ["--names", "tuned", "general", "--height", 32]
    assert strips(*flags, ckpt=(tuned, general_checkpoint), datadir=None)[0] == 0
    assert "scan2, tuned (trained on it)" in caplog.text
    assert "tuned: fine-tuned on other views of scan2" in caplog.text
    content = torch.load(tuned, weights_only=True)["vggt_nerf_scene"]
    tested, trained = content["test_ids"], content["train_ids"]
    assert len(labels) == 3 * len(tested)
    for place, view in enumerate(tested):
        rows = labels[3 * place : 3 * place + 3]
        assert rows[0][1] == f"truth, view {view}" and rows[2][1] == "true depth"
        assert rows[0][2].startswith("tuned, ") and rows[0][3].startswith("general, ")
        assert [row[3] for row in rows[1:]] == ["error", "depth"]
        assert all(int(row[0].removeprefix("source ")) in trained for row in rows)


def test_a_fine_tuned_scene_alone(strips, tuned, labels):
    assert strips(ckpt=(tuned,), datadir=None)[0] == 0
    assert all("vggt_finetune_scan2" in " ".join(filter(None, row)) for row in labels)


def test_a_video_shows_each_view_a_second(
    strips, tuned, tmp_path, general_checkpoint, decode_video
):
    out = tmp_path / "out" / "scan2.mp4"
    both = (general_checkpoint, tuned)
    assert strips("--height", 32, "--pictures", "mp4", ckpt=both, datadir=None)[0] == 0
    said, frames = decode_video(out)
    tested = torch.load(tuned, weights_only=True)["vggt_nerf_scene"]["test_ids"]
    assert len(frames) == len(tested) and "1 fps" in said


def test_procedural_worlds_need_no_data(strips, tmp_path):
    flags = ["--dataset_name", "procedural", "--image_size", 24, 32, "--world_views", 5]
    flags += ["--num_worlds", 1, "--world_targets", 1, "--out", tmp_path / "new folder"]
    assert strips(*flags, datadir="absent")[0] == 0
    names = ("world0000_textured.jpg", "world0000_textureless.jpg")
    for name in names:
        with Image.open(tmp_path / "new folder" / name) as picture:
            assert picture.format == "JPEG"


def test_mvsnerf_says_what_it_was_trained_on(
    strips, general_checkpoint, mvsnerf_file, tmp_path, caplog
):
    caplog.set_level("INFO")
    flags = ["--targets", 5, "--pictures", "none", "--image_size", 32, 40]
    assert strips(*flags, ckpt=(general_checkpoint, mvsnerf_file))[0] == 0
    assert "scan2, mvsnerf-v0" in caplog.text and "88 training scans of DTU" in caplog.text
    models = json.loads((tmp_path / "out" / "comparison.json").read_text())["models"]
    assert models["mvsnerf-v0"]["scenes"]["scan2"]["trained_on"] is False
    assert not list((tmp_path / "out").glob("*.jpg"))
    assert "scan65" in TrainingScenes.of_general(str(mvsnerf_file))
    assert "scan2" not in TrainingScenes.of_general(str(mvsnerf_file))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--ckpts", "absent.ckpt"], ["absent.ckpt"]),
        (["--names", "a", "b"], ["names", "give 1, one per checkpoint"]),
        (["--pictures", "gif"], ["gif", "jpg"]),
    ],
)
def test_refusals_name_the_value(strips, argv, words):
    status, said = strips(*argv)
    assert status == 2 and all(word in said for word in words), said


def test_views_that_were_trained_on_are_refused(strips, tuned):
    view = torch.load(tuned, weights_only=True)["vggt_nerf_scene"]["train_ids"][0]
    status, said = strips("--targets", view, ckpt=(tuned,), datadir=None)
    assert status == 2 and f"was fine-tuned on view {view}" in said
