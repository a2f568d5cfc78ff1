"""The evaluation on photographs as users run it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tiny_models import SMALLEST_VGGT

from benchmarks import backbone_real_scenes
from models.vggt.initialization import random_vggt
from training.vggt.export import export_vggt

ROOT = Path(__file__).resolve().parents[2]
SCENES = ROOT.parent / "shared" / "scenes"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    config = SMALLEST_VGGT
    folder = tmp_path_factory.mktemp("weights")
    export_vggt(random_vggt(config, 0), folder)
    return folder


def test_figures_and_pictures_of_scans(weights, tiny_dtu, tmp_path):
    command = ["-m", "benchmarks.backbone_real_scenes", "--weights", weights, "--side", "56"]
    command += ["--dtu", f"{tiny_dtu}:scan1,scan2", "--views", "3", "--out", tmp_path / "out"]
    run = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    for word in ("scan1", "scan2", "mean", "network", "trivial", "AUC@30", "AbsRel", "depth maps"):
        assert word in run.stderr, run.stderr
    report = json.loads((tmp_path / "out" / "real_scenes.json").read_text())
    assert report["settings"]["views"] == 3 and report["settings"]["weights"] == str(weights)
    assert set(report["scenes"]) == {"scan1", "scan2"}
    for scene in report["scenes"].values():
        assert [len(group["views"]) for group in scene["groups"]] == [3] * 4
        assert 0 <= scene["network"]["auc_30"] <= 1
        assert scene["trivial"]["auc_30"] == 0
        assert 0 < scene["trivial"]["abs_rel"] < 1
    assert report["mean"]["trivial"]["direction_median"] == pytest.approx(90)
    with Image.open(tmp_path / "out" / "scan1.png") as picture:
        assert picture.size == (3 * 56, 3 * 42)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dtu", "{tmp}/absent"], ["{tmp}/absent", "no such data folder"]),
        (["--llff", "{tmp}/absent"], ["{tmp}/absent"]),
        (["--transforms", "{tmp}/absent"], ["{tmp}/absent"]),
        (["--dtu", "{dtu}:scan9"], ["no scan 'scan9'", "scan9"]),
        (["--dtu", "{few}"], ["scan1", "3 views", "groups of 4 are wanted"]),
        (["--dtu", "{dtu}", "{dtu}"], ["two scenes are named 'scan2'"]),
        (["--dtu", "{dtu}", "--views", "9"], ["--views 9", "2 to 8"]),
        (["--dtu", "{dtu}", "--side", "50"], ["--side 50", "patch, 14"]),
        (["--dtu", "{dtu}", "--weights", "{tmp}/none"], ["{tmp}/none"]),
        (["--llff", "{tmp}/absent:left"], ["numbers such as 5,15"]),
        ([], ["no scenes", "--dtu"]),
    ],
)
def test_refusals(flags, words, weights, tiny_dtu, few_views, tmp_path, caplog):
    known = {"tmp": tmp_path, "dtu": tiny_dtu, "few": few_views}
    argv = ["--weights", str(weights), "--out", str(tmp_path / "out")]
    argv += [flag.format(**known) for flag in flags]
    assert backbone_real_scenes.main(argv) == 2
    for word in words:
        assert word.format(**known) in caplog.text, caplog.text
    assert not (tmp_path / "out" / "real_scenes.json").exists()


@pytest.fixture
def few_views(tmp_path, tiny_scene, write_dtu_scene, write_dtu_lists):
    few = replace(tiny_scene, images=tiny_scene.images[:3], w2c=tiny_scene.w2c[:3])
    write_dtu_scene(tmp_path / "few", "scan1", replace(few, depths=None))
    write_dtu_lists(tmp_path / "few", {"train": ["scan1"], "test": ["scan1"]})
    return tmp_path / "few"


@pytest.mark.data
@pytest.mark.slow
def test_photographs_in_every_layout(weights, tmp_path, caplog):
    if not SCENES.is_dir():
        pytest.skip("the photographs are not beside the checkout")
    argv = ["--weights", str(weights), "--out", str(tmp_path), "--side", "140"]
    argv += ["--dtu", f"{SCENES / 'dtu'}:scan24", "--llff", f"{SCENES / 'llff' / 'fern'}:12"]
    argv += ["--transforms", f"{SCENES / 'fox'}:5"]
    with caplog.at_level("INFO"):
        assert backbone_real_scenes.main(argv) == 0
    report = json.loads((tmp_path / "real_scenes.json").read_text())
    references = {name: scene["depth_reference"] for name, scene in report["scenes"].items()}
    assert references == {
        "scan24": ["triangulated matches"],
        "fern": ["COLMAP points"],
        "fox": ["triangulated matches"],
    }
    assert all(scene["depth_points"] > 100 for scene in report["scenes"].values())
