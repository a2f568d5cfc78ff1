"""The evaluation of a backbone on photographs."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import status_of
from PIL import Image
from reference_data import SCENES
from tiny_models import SMALLEST_VGGT

from benchmarks.backbone_real_scenes import (
    evaluate_groups,
    main,
    summarize,
    with_matched_depth,
)
from datasets.config import DataChoice
from datasets.protocols import scene_tasks
from evaluation.report import mean_figures
from models.vggt.network import VGGTPrediction, random_vggt
from models.vggt.pose_encoding import encode_pose
from utils.cameras import Cameras

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    random_vggt(SMALLEST_VGGT, 0).save_pretrained(folder)
    return folder


def test_figures_and_pictures_of_scans(weights, tiny_dtu, tmp_path):
    command = ["-m", "benchmarks.backbone_real_scenes", "--vggt_path", weights, "--out"]
    command += [tmp_path / "out", "--datadir", tiny_dtu, "--scan", "scan1,scan2"]
    command += ["--targets", 2, 5, "--n_views", 2, "--backbone_size", 56, "--device", "cpu"]
    command = [sys.executable, *map(str, command)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    words = ("scan1 network", "scan2 trivial", "mean network", "AUC@30", "AbsRel", "depth maps")
    assert run.returncode == 0 and all(word in run.stderr for word in words), run.stderr
    report = json.loads((tmp_path / "out" / "figures.json").read_text())
    settings = report["settings"]
    assert settings["data"]["n_views"] == 2 and settings["vggt_path"] == str(weights)
    assert set(report["scenes"]) == {"scan1", "scan2"}
    for scene in report["scenes"].values():
        views = [group["views"] for group in scene["groups"]]
        assert [group[0] for group in views] == [2, 5] and {len(set(group)) for group in views} == {
            3
        }
        assert 0 <= scene["network"]["auc_30"] <= 1
        assert scene["trivial"]["auc_30"] == 0
        assert 0 < scene["trivial"]["abs_rel"] < 1
    assert report["mean"]["trivial"]["direction_median"] == pytest.approx(90)
    with Image.open(tmp_path / "out" / "scan1.png") as picture:
        assert picture.size == (3 * 56, 3 * 42)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--datadir", "{tmp}/absent"], ["{tmp}/absent", "no such data folder"]),
        (["--dataset_name", "llff", "--datadir", "{tmp}/absent"], ["{tmp}/absent"]),
        (["--datadir", "{dtu}", "--scan", "scan9"], ["no scan 'scan9'"]),
        (["--datadir", "{dtu}", "--targets", "77"], ["no view 77"]),
        (["--datadir", "{dtu}", "--side", "50"], ["backbone_size=50", "patch 14"]),
        (["--datadir", "{dtu}", "--weights", "{tmp}/none"], ["{tmp}/none"]),
        (["--dtu", "{dtu}"], ["unknown flag or config key --dtu"]),
    ],
)
def test_refusals(flags, words, weights, tiny_dtu, tmp_path, assert_refused):
    known = {"tmp": tmp_path, "dtu": tiny_dtu}
    flags, words = ([text.format(**known) for text in texts] for texts in (flags, words))
    out = tmp_path / "out"
    assert_refused(status_of(main, "--weights", weights, "--out", out, *flags), words)
    assert not (out / "figures.json").exists()


def test_worlds_have_depth_everywhere(weights, tmp_path):
    flags = ["--dataset_name", "procedural", "--num_worlds", 1, "--world_views", 4]
    flags += ["--world_targets", 1, "--image_size", 42, 56, "--side", 56, "--device", "cpu"]
    assert status_of(main, "--weights", weights, "--out", tmp_path, *flags) == 0
    scenes = json.loads((tmp_path / "figures.json").read_text())["scenes"]
    assert [scene["depth_reference"] for scene in scenes.values()] == ["depth maps"] * 2


@pytest.mark.data
@pytest.mark.parametrize("scene", [("dtu", "--scan", "scan24"), ("llff/fern",), ("fox",)])
def test_photographs_in_every_layout(weights, tmp_path, scene):
    if not SCENES.is_dir():
        pytest.skip("the photographs are not beside the checkout")
    folder, *flags = scene
    flags += ["--targets", 5, "--side", 140, "--weights", weights, "--out", tmp_path]
    assert status_of(main, "--datadir", SCENES / folder, *flags) == 0
    (report,) = json.loads((tmp_path / "figures.json").read_text())["scenes"].values()
    assert report["depth_reference"] == "triangulated matches"
    assert report["network"]["depth_pixels"] > 100


def true_prediction(views):
    """Return what a perfect network would: in the frame of the first view, in its own unit."""
    frame = views.cameras.w2c[:, :1]
    cameras = Cameras(views.cameras.intrinsics, frame @ views.cameras.c2w).scaled_world(0.37)
    return VGGTPrediction(
        pose_enc=encode_pose(cameras, *views.size),
        depth=0.37 * views.depths[..., None],
        depth_conf=torch.ones_like(views.depths),
    )


@pytest.fixture
def task(tiny_dtu):
    return scene_tasks(DataChoice(datadir=str(tiny_dtu), scan="scan1", targets=(1, 6)))[0]


def test_the_truth_is_perfect_and_the_trivial_prediction_is_not(task):
    results = list(evaluate_groups(true_prediction, task, side=56, patch=14))
    assert [result.view_ids[0] for result in results] == [1, 6]
    assert {len(result.view_ids) for result in results} == {4}
    assert [result.reference for result in results] == ["depth maps"] * 2
    assert results[0].views.size == (42, 56)
    truth = summarize([result.network for result in results])
    assert (truth["auc_5"], truth["auc_30"]) == (1.0, 1.0)
    assert (truth["within_103"], truth["within_125"]) == (1.0, 1.0)
    for name in ("rotation_median", "direction_median", "focal_median", "abs_rel"):
        assert truth[name] == pytest.approx(0, abs=0.01), name
    trivial = summarize([result.trivial for result in results])
    assert trivial["auc_30"] == 0 and trivial["direction_median"] == pytest.approx(90)
    assert trivial["abs_rel"] > 0.03 and trivial["focal_median"] > 0.05


def test_matched_points_give_the_depth_of_the_pixels_that_they_fall_into(task):
    native = task.scene.load_views([1, 2, 3])
    small = native.resized((42, 56))
    matched = with_matched_depth(replace(small, depths=0 * small.depths), native)
    known = matched.depths > 0
    assert 10 < known.sum() < known.numel() / 4
    errors = (matched.depths / small.depths - 1).abs()[known]
    assert errors.median() < 0.02


def test_without_reference_there_are_no_figures_of_depth(task):
    def dark(view):
        pixels = task.scene.read_view(view)
        return replace(pixels, image=0 * pixels.image, depth=0 * pixels.depth)

    hidden = replace(task, scene=replace(task.scene, read_view=dark))
    result, _ = evaluate_groups(true_prediction, hidden, side=56, patch=14)
    assert result.reference == "triangulated matches"
    summary = summarize([result.network])
    assert summary["auc_5"] == 1.0 and summary["abs_rel"] is None and summary["depth_pixels"] == 0
    mean = mean_figures([summary, summary | {"abs_rel": 0.5, "auc_5": 0.0}], summary)
    assert mean["abs_rel"] == 0.5 and mean["auc_5"] == 0.5 and mean["within_103"] is None
