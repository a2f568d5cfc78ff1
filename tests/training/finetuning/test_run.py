"""The fine-tuning script from its flags to its files, whatever goes wrong."""

import json
import logging
import math
from pathlib import Path

import pytest
import torch
from training_runs import train

import train_vggt_nerf_finetuning_pl
from datasets.config import DataChoice
from datasets.protocols import read_split
from evaluation.rendering import TestViews
from models.checkpoints.scene_file import load_finetuned, read_scene_file
from training.finetuning import run_log
from training.finetuning.module import FineTuningModule
from utils.checkpoints import save_atomically
from utils.errors import UserError

NAME = "runs/scan2/vggt_finetune_scan2"
MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40 GiB.")
pytestmark = pytest.mark.filterwarnings("default")


def step_of(path):
    return read_scene_file(path)["training"]["progress"]["step"]


def test_a_run_and_what_it_leaves(finetune, tiny_dtu, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert finetune(lrate_maps=0.01) == 0
    folder = tmp_path / NAME
    curve = json.loads((folder / "curve.json").read_text())
    assert [row["step"] for row in curve] == [0, 3, 6]
    assert all(row["seconds"] >= row["training_seconds"] >= 0 for row in curve)
    # Neither encoding nor validation counts as training.
    assert curve[0]["training_seconds"] < 0.2 * curve[0]["seconds"]
    metrics = json.loads((folder / "metrics.json").read_text())["scenes"]["scan2"]
    assert metrics["psnr"] == pytest.approx(curve[-1]["psnr"], abs=1e-3)
    split = read_split(DataChoice(datadir=str(tiny_dtu / "scan2")), 3)
    # Sources are named as the files are; views that come first are not simply counted.
    assert split.pool != tuple(range(len(split.pool)))
    named = {source for view in metrics["views"] for source in view["sources"]}
    assert named <= set(split.pool)
    assert "test PSNR" in caplog.text and "latest.tar" in caplog.text
    assert list((folder / "logs").iterdir())
    assert {path.name[:12] for path in (folder / "pictures").glob("*.jpg")} == {
        f"step=000000{step}" for step in (0, 3, 6)
    }
    load_finetuned(folder / "ckpts/best.tar")
    # The file renders alone.
    loaded = load_finetuned(folder / "ckpts/latest.tar")
    assert loaded.header.scene == "scan2" and len(loaded.scene.cameras.shape) == 1
    assert not set(loaded.header.train_ids) & set(loaded.header.test_ids)
    tests = TestViews(split.scene.load_views(split.targets), split.targets, split.region, 999)
    psnr = tests.mean_psnr(tests.render(loaded.scene))
    assert psnr == pytest.approx(metrics["psnr"], abs=1e-3)
    images = loaded.render(loaded.scene.cameras[:2], size=(16, 20))
    assert images.rgb.shape == (2, 3, 16, 20) and images.depth.isfinite().all()


def test_worse_is_not_kept(finetune, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    # A learning rate that destroys the field.
    assert finetune(lrate=3.0, lrate_maps=5.0, warmup_steps=0) == 0
    curve = json.loads((tmp_path / NAME / "curve.json").read_text())
    assert curve[-1]["psnr"] < curve[0]["psnr"]
    assert "below the initial" in caplog.text
    report = json.loads((tmp_path / NAME / "metrics.json").read_text())
    best = max(curve, key=lambda row: row["psnr"])
    assert report["scenes"]["scan2"]["psnr"] == pytest.approx(best["psnr"], abs=1e-3)
    assert report["settings"]["step"] == best["step"]


def test_sizes_of_the_model_and_of_patches_have_no_effect_and_are_named(finetune, caplog):
    assert finetune("--volume_widths", 8, 8, field_width=48, patch_size=8, num_steps=1) == 0
    for name in ("field_width", "volume_widths", "patch_size"):
        assert f"--{name} no longer has an effect" in caplog.text


@pytest.fixture
def stopped(scene, tmp_path):
    """The file of a run that crashed after step 4."""
    return train(scene, tmp_path / "runs", "--expname", "other", at=4)[1].parents[2] / (
        "other/ckpts/latest.tar"
    )


def resume(*argv):
    return train_vggt_nerf_finetuning_pl.main(["--ckpt", *map(str, argv)])


def test_a_file_alone_says_where_its_run_lives_and_its_data_are(finetune, stopped, tmp_path):
    assert finetune() == 0
    assert resume(stopped) == 0
    assert step_of(stopped) == 6
    curve = json.loads((tmp_path / NAME / "curve.json").read_text())
    assert [row["step"] for row in curve] == [0, 3, 6]
    assert not stopped.with_name("latest.1.tar").exists()


def test_a_run_and_data_that_moved(stopped, tiny_dtu, tmp_path):
    moved = stopped.parents[1].rename(tmp_path / "moved") / "ckpts/latest.tar"
    (tmp_path / "data").symlink_to(tiny_dtu)
    assert resume(moved, "--datadir", tmp_path / "data/scan2") == 0
    assert step_of(moved) == 6 and not stopped.exists()
    assert load_finetuned(moved).header.settings["data"]["datadir"] == str(tmp_path / "data/scan2")


def test_only_what_somebody_chose_is_said_not_to_count(stopped, caplog):
    assert resume(stopped, "--num_steps", 7) == 0
    decided = [line for line in caplog.text.splitlines() if "have priority:" in line]
    assert len(decided) == 1 and decided[0].endswith("optimizer.num_steps=6, not 7")


def test_files_of_earlier_runs_are_kept_and_resume(finetune, tmp_path, caplog):
    for steps in (2, 3, 4):
        assert finetune(num_steps=steps) == 0
    folder = tmp_path / NAME / "ckpts"
    names = ("latest.tar", "latest.2.tar", "latest.1.tar")
    assert [step_of(folder / name) for name in names] == [4, 3, 2]
    load_finetuned(folder / "best.1.tar")
    assert resume(folder / "latest.1.tar") == 0
    assert [step_of(folder / name) for name in ("latest.tar", "latest.3.tar")] == [2, 4]
    assert "is missing" not in caplog.text


def test_a_run_that_diverges_saves_what_it_learnt(finetune, tmp_path, monkeypatch, caplog):
    real = FineTuningModule.training_step

    def poisoned(module, *batch):
        outputs = real(module, *batch)
        return outputs | {"loss": outputs["loss"] * (math.nan if module.global_step else 1)}

    monkeypatch.setattr(FineTuningModule, "training_step", poisoned)
    assert finetune(num_steps=90, val_every=90, save_every=90) == 1
    scene = load_finetuned(tmp_path / NAME / "ckpts/latest.tar").scene
    assert all(value.isfinite().all() for value in scene.parameters())
    assert "latest.tar" in caplog.text and "--ckpt" not in caplog.text


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        # Pictures that cannot be written stop nothing.
        ((run_log, "save_image", OSError(28, "No space left")), 0, ["No space left"]),
        ((FineTuningModule, "training_step", MEMORY), 1, ["out of memory", "--batch_size"]),
        # The best is written after the first file, from which the run goes on.
        ((run_log, "save_atomically", UserError("disk full")), 2, ["disk full"]),
    ],
)
def test_failures_on_the_way(finetune, tmp_path, monkeypatch, caplog, fault, status, words):
    module, name, error = fault

    def fail(*arguments):
        if name == "save_atomically" and Path(arguments[1]).name == "latest.tar":
            return save_atomically(*arguments)
        raise error

    monkeypatch.setattr(module, name, fail)
    assert finetune() == status
    assert all(word in caplog.text for word in words)
    latest = tmp_path / NAME / "ckpts/latest.tar"
    if status == 0:
        assert step_of(latest) == 6
    if status == 2:
        assert step_of(latest) == 0 and not latest.with_name("best.tar").exists()


def test_another_scene_s_file(finetune, refused, tiny_dtu, tmp_path):
    assert finetune(num_steps=1) == 0
    latest = tmp_path / NAME / "ckpts/latest.tar"
    ours = tiny_dtu / "scan1"
    refused("is of scene 'scan2'", tiny_dtu / "scan2", argv=("--ckpt", latest), datadir=ours)
    refused("resume from latest.tar", argv=("--ckpt", latest.with_name("best.tar")))
