"""The evaluation on photographs as users run it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import status_of
from PIL import Image
from reference_data import SCENES
from tiny_models import SMALLEST_VGGT

from benchmarks.backbone_real_scenes import dtu_scenes, main, plan_groups, split_spec
from datasets.posed_scene import PosedScene
from datasets.protocols import DTU_POOL, DTU_TARGETS
from models.vggt.network import random_vggt
from utils.cameras import Cameras
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    random_vggt(SMALLEST_VGGT, 0).save_pretrained(folder)
    return folder


def test_figures_and_pictures_of_scans(weights, tiny_dtu, tmp_path):
    command = ["-m", "benchmarks.backbone_real_scenes", "--vggt_path", weights, "--out"]
    command += [tmp_path / "out", "--dtu", f"{tiny_dtu}:scan1,scan2", "--n_views", "3"]
    command += ["--backbone_size", "56"]
    command = [sys.executable, *map(str, command)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    words = ("scan1", "scan2", "mean", "network", "trivial", "AUC@30", "AbsRel", "depth maps")
    assert run.returncode == 0 and all(word in run.stderr for word in words), run.stderr
    report = json.loads((tmp_path / "out" / "real_scenes.json").read_text())
    assert report["settings"]["n_views"] == 3 and report["settings"]["vggt_path"] == str(weights)
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
        (["--dtu", "{few}"], ["scan1", "3 source views are wanted"]),
        (["--dtu", "{dtu}", "{dtu}"], ["two scenes are named 'scan2'"]),
        (["--dtu", "{dtu}", "--views", "9"], ["--n_views 9", "2 to 8"]),
        (["--dtu", "{dtu}", "--side", "50"], ["--backbone_size 50", "patch, 14"]),
        (["--dtu", "{dtu}", "--weights", "{tmp}/none"], ["{tmp}/none"]),
        (["--llff", "{tmp}/absent:left"], ["numbers such as 5,15"]),
        ([], ["no scenes", "--dtu"]),
    ],
)
def test_refusals(flags, words, weights, tiny_dtu, few_views, tmp_path, assert_refused):
    known = {"tmp": tmp_path, "dtu": tiny_dtu, "few": few_views}
    flags, words = ([text.format(**known) for text in texts] for texts in (flags, words))
    assert_refused(status_of(main, "--weights", weights, "--out", tmp_path / "out", *flags), words)
    assert not (tmp_path / "out" / "real_scenes.json").exists()


@pytest.fixture
def few_views(tmp_path, tiny_scene, write_dtu_scene, write_dtu_lists):
    few = replace(tiny_scene, images=tiny_scene.images[:3], w2c=tiny_scene.w2c[:3])
    write_dtu_scene(tmp_path / "few", "scan1", replace(few, depths=None))
    write_dtu_lists(tmp_path / "few", {"train": ["scan1"], "test": ["scan1"]})
    return tmp_path / "few"


@pytest.mark.data
@pytest.mark.slow
def test_photographs_in_every_layout(weights, tmp_path):
    if not SCENES.is_dir():
        pytest.skip("the photographs are not beside the checkout")
    flags = ["--dtu", f"{SCENES / 'dtu'}:scan24", "--llff", f"{SCENES / 'llff' / 'fern'}:12"]
    flags += ["--transforms", f"{SCENES / 'fox'}:5", "--side", 140]
    assert status_of(main, "--weights", weights, "--out", tmp_path, *flags) == 0
    report = json.loads((tmp_path / "real_scenes.json").read_text())
    references = {name: scene["depth_reference"] for name, scene in report["scenes"].items()}
    matches, points = ["triangulated matches"], ["COLMAP points"]
    assert references == {"scan24": matches, "fern": points, "fox": matches}
    assert all(scene["depth_points"] > 100 for scene in report["scenes"].values())


def views_in_a_row(count):
    c2w = torch.eye(4).repeat(count, 1, 1)
    c2w[:, 0, 3] = torch.arange(float(count))
    cameras = Cameras(torch.eye(3).repeat(count, 1, 1), c2w)
    ids = tuple(range(count))
    near_far = torch.tensor([1.0, 2.0])
    return PosedScene("row", ids, tuple(map(str, ids)), cameras, near_far, (4, 4), pytest.fail)


def test_targets_are_joined_by_their_nearest_views():
    groups = plan_groups(views_in_a_row(16), 3)
    assert [group[0] for group in groups] == [2, 6, 10, 14]
    assert all(set(group) == {group[0] - 1, group[0], group[0] + 1} for group in groups)
    named = plan_groups(views_in_a_row(9), 3, targets=(4,), pool=(0, 1, 8))
    assert named == ((4, 1, 0),)
    assert {len(group) for group in plan_groups(views_in_a_row(3), 3)} == {3}


@pytest.mark.parametrize(
    ("count", "targets", "words"),
    [(3, (), "3 source views .* there are 2"), (9, (4, 9), "no view 9.* 0 to 8")],
)
def test_groups_that_cannot_be_formed_are_refused(count, targets, words):
    with pytest.raises(UserError, match=f"row.* {words}"):
        plan_groups(views_in_a_row(count), 4, targets)


def test_a_colon_separates_names_from_the_folder(tmp_path):
    odd = tmp_path / "a:b"
    odd.mkdir()
    assert split_spec(f"{tmp_path}/x:scan1,scan2") == (tmp_path / "x", ["scan1", "scan2"])
    assert split_spec(str(tmp_path)) == (tmp_path, [])
    assert split_spec(str(odd)) == (odd, [])


def test_scans_of_a_list_or_by_name_have_groups_from_the_protocol_if_whole(
    tiny_dtu, tmp_path, tiny_scene, write_dtu_scene
):
    assert [real.scene.name for real in dtu_scenes(str(tiny_dtu), 4)] == ["scan2"]
    scenes = dtu_scenes(f"{tiny_dtu}:scan2,scan1", 5)
    assert [real.scene.name for real in scenes] == ["scan2", "scan1"]
    assert {len(group) for real in scenes for group in real.groups} == {5}
    repeated = [np.concatenate([part] * 7)[:49] for part in (tiny_scene.images, tiny_scene.w2c)]
    whole = replace(tiny_scene, images=repeated[0], w2c=repeated[1], depths=None)
    write_dtu_scene(tmp_path, "scan7", whole)
    (real,) = dtu_scenes(f"{tmp_path}:scan7", 4)
    assert tuple(group[0] for group in real.groups) == DTU_TARGETS
    assert all(set(group[1:]) <= set(DTU_POOL) for group in real.groups)
