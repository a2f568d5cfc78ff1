"""The fine-tuning script from its flags to its files."""

import json
import logging
import os
import signal

import pytest
import torch

from datasets.protocols import read_split
from evaluation.config import DataChoice
from models.scene_file import load_finetuned, read_scene_file
from training import finetuning_log as record
from training import finetuning_loop as loop
from training.finetuning_validation import TestViews
from utils.checkpoints import load_safely

NAME = "runs/scan2/vggt_finetune_scan2"


def same(ours, theirs):
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


def test_a_run_and_what_it_leaves(finetune, tmp_path, caplog):
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
    assert "test PSNR" in caplog.text and "latest.tar" in caplog.text
    assert list((folder / "logs").iterdir())
    assert {path.name[:12] for path in (folder / "pictures").glob("*.jpg")} == {
        f"step=000000{step}" for step in (0, 3, 6)
    }
    for name in ("latest", "best"):
        load_safely(folder / "ckpts" / f"{name}.tar")


def test_figures_name_sources_as_the_files_do(finetune, tmp_path, tiny_dtu):
    finetune(num_steps=1)
    split = read_split(DataChoice(datadir=str(tiny_dtu / "scan2")), 3)
    report = json.loads((tmp_path / NAME / "metrics.json").read_text())["scenes"]["scan2"]
    named = {source for view in report["views"] for source in view["sources"]}
    # Views that come first are not simply counted.
    assert split.train_ids != tuple(range(len(split.train_ids)))
    assert named <= set(split.train_ids)


def keep_step_four(monkeypatch, path, without=()):
    """Also write what a run that was killed after step 4 leaves."""
    real = record.save_atomically

    def save(content, target):
        real(content, target)
        if content["training"] and content["training"]["progress"]["step"] == 4:
            progress = content["training"]["progress"]
            kept = {name: value for name, value in progress.items() if name not in without}
            real({**content, "training": {**content["training"], "progress": kept}}, path)

    monkeypatch.setattr(record, "save_atomically", save)


def test_a_run_resumes_exactly(finetune, tmp_path, monkeypatch):
    middle = tmp_path / "middle.tar"
    keep_step_four(monkeypatch, middle)
    assert finetune(expname="whole") == 0
    assert finetune("--ckpt", middle, expname="resumed") == 0
    ours, theirs = (
        read_scene_file(tmp_path / "runs/scan2" / name / "ckpts/latest.tar")
        for name in ("resumed", "whole")
    )
    assert same(ours["state"], theirs["state"])
    assert same(ours["training"]["progress"], theirs["training"]["progress"])
    rows = [[row["psnr"] for row in content["training"]["curve"]] for content in (ours, theirs)]
    assert rows[0] == rows[1]


def test_a_file_from_before_there_was_an_average_resumes(finetune, tmp_path, monkeypatch):
    old = tmp_path / "old.tar"
    keep_step_four(monkeypatch, old, without=("average",))
    assert finetune() == 0
    assert "average" not in read_scene_file(old)["training"]["progress"]
    assert finetune("--ckpt", old, expname="resumed") == 0
    latest = read_scene_file(tmp_path / "runs/scan2/resumed/ckpts/latest.tar")
    assert latest["training"]["progress"]["step"] == 6


def test_a_file_renders_alone(finetune, tmp_path, tiny_dtu):
    assert finetune() == 0
    metrics = json.loads((tmp_path / NAME / "metrics.json").read_text())["scenes"]["scan2"]
    loaded = load_finetuned(tmp_path / NAME / "ckpts/latest.tar")
    assert loaded.name == "scan2" and len(loaded.cameras.shape) == 1
    assert not set(loaded.train_ids) & set(loaded.test_ids)
    split = read_split(DataChoice(datadir=str(tiny_dtu / "scan2")), 3)
    tests = TestViews(split.scene.load_views(split.test_ids), split.test_ids, split.region, 999)
    psnr = tests.mean_psnr(tests.render(loaded.scene))
    assert psnr == pytest.approx(metrics["psnr"], abs=1e-3)
    images = loaded.render(loaded.cameras[:2], size=(16, 20))
    assert images.rgb.shape == (2, 3, 16, 20) and images.depth.isfinite().all()


def test_worse_is_not_kept(finetune, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    # A learning rate that destroys the field.
    assert finetune(lrate=3.0, lrate_maps=5.0, warmup_steps=0) == 0
    curve = json.loads((tmp_path / NAME / "curve.json").read_text())
    assert curve[-1]["psnr"] < curve[0]["psnr"]
    assert "ended below where it started" in caplog.text
    report = json.loads((tmp_path / NAME / "metrics.json").read_text())
    best = max(curve, key=lambda row: row["psnr"])
    assert report["scenes"]["scan2"]["psnr"] == pytest.approx(best["psnr"], abs=1e-3)
    assert report["settings"]["step"] == best["step"]


def test_settings_of_the_checkpoint_win_and_are_named_once(finetune, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert finetune(field_width=48, num_steps=2, save_every=1) == 0
    named = [line for line in caplog.text.splitlines() if "field_width" in line]
    assert len(named) == 1 and "field_width=16" in named[0] and "48" in named[0]
    caplog.clear()
    latest = tmp_path / NAME / "ckpts/latest.tar"
    assert finetune("--ckpt", latest, num_steps=9, field_width=48) == 0
    named = [line for line in caplog.text.splitlines() if "num_steps" in line]
    assert len(named) == 1 and "num_steps=2" in named[0]
    assert json.loads((tmp_path / NAME / "curve.json").read_text())[-1]["step"] == 2


def test_a_stopped_run_saves(finetune, tmp_path, monkeypatch, caplog):
    real = loop.step_losses

    def stop_in_the_second(*arguments):
        if arguments[4].initial_seed() == loop.generator_for("cpu", 0, 1).initial_seed():
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(loop, "step_losses", stop_in_the_second)
    assert finetune() == 128 + signal.SIGTERM
    latest = tmp_path / NAME / "ckpts/latest.tar"
    assert read_scene_file(latest)["training"]["progress"]["step"] == 2
    assert str(latest) in caplog.text
