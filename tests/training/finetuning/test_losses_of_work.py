"""Nothing that was computed is lost, whatever goes wrong."""

import json
import math
from pathlib import Path

import pytest
import torch

import train_vggt_nerf_finetuning_pl
from datasets.views import Views
from evaluation.scores import Region, ViewImages
from models.checkpoint import load_finetuned, read_scene_file
from training import finetuning_log as record
from training import finetuning_loop as loop
from training.finetuning_loop import Best
from training.scene_validation import TestViews

NAME = "runs/scan2/vggt_finetune_scan2"


def step_of(path):
    return read_scene_file(path)["training"]["progress"]["step"]


@pytest.fixture
def stopped(finetune, tmp_path, monkeypatch):
    """Stop a run named "other" after step 4; return its file."""

    def stop(content, target):
        real(content, target)
        if content["training"] and content["training"]["progress"]["step"] == 4:
            raise KeyboardInterrupt

    real = record.save_atomically
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(record, "save_atomically", stop)
        finetune(expname="other")
    return tmp_path / "runs/scan2/other/ckpts/latest.tar"


def test_a_file_alone_says_where_its_run_lives_and_its_data_are(finetune, stopped, tmp_path):
    assert finetune() == 0
    assert train_vggt_nerf_finetuning_pl.main(["--ckpt", str(stopped)]) == 0
    assert step_of(stopped) == 6
    curve = json.loads((tmp_path / NAME / "curve.json").read_text())
    assert [row["step"] for row in curve] == [0, 3, 6]
    assert not stopped.with_name("latest.1.tar").exists()


def test_a_run_that_moved_goes_on_where_it_is(stopped, tmp_path):
    moved = stopped.parents[1].rename(tmp_path / "moved") / "ckpts/latest.tar"
    assert train_vggt_nerf_finetuning_pl.main(["--ckpt", str(moved)]) == 0
    assert step_of(moved) == 6 and not stopped.exists()


def test_data_that_moved_are_found_where_they_are_said_to_be(stopped, tiny_dtu, tmp_path):
    moved = tmp_path / "moved"
    moved.symlink_to(tiny_dtu)
    argv = ["--ckpt", str(stopped), "--datadir", str(moved / "scan2")]
    assert train_vggt_nerf_finetuning_pl.main(argv) == 0
    assert load_finetuned(stopped).settings["data"]["datadir"] == str(moved / "scan2")


def test_only_what_somebody_chose_is_said_not_to_count(stopped, caplog):
    assert train_vggt_nerf_finetuning_pl.main(["--ckpt", str(stopped), "--num_steps", "7"]) == 0
    decided = [line for line in caplog.text.splitlines() if "decides:" in line]
    assert len(decided) == 1 and decided[0].endswith("optimizer.num_steps=6, not 7")


def test_a_new_run_in_an_old_folder_leaves_the_old_one_its_files(finetune, tmp_path, caplog):
    assert finetune(num_steps=2) == 0
    assert finetune(num_steps=3) == 0
    assert finetune(num_steps=4) == 0
    folder = tmp_path / NAME / "ckpts"
    names = ("latest.tar", "latest.2.tar", "latest.1.tar")
    assert [step_of(folder / name) for name in names] == [4, 3, 2]
    load_finetuned(folder / "best.1.tar")
    assert finetune("--ckpt", folder / "latest.1.tar", save_dir="runs_fine_tuning") == 0
    assert [step_of(folder / name) for name in ("latest.tar", "latest.3.tar")] == [2, 4]
    assert "is missing" not in caplog.text
    assert "latest.tar is of an earlier run" in caplog.text


def test_a_run_that_diverges_saves_what_it_learnt(finetune, tmp_path, monkeypatch, caplog):
    real = loop.step_losses

    def poisoned(*arguments):
        losses = real(*arguments)
        late = arguments[4].initial_seed() != loop.generator_for("cpu", 0, 0).initial_seed()
        return type(losses)(losses.total * (math.nan if late else 1), losses.fine)

    monkeypatch.setattr(loop, "step_losses", poisoned)
    assert finetune(num_steps=90, val_every=90, save_every=90, max_bad_steps=5) == 1
    scene = load_finetuned(tmp_path / NAME / "ckpts/latest.tar").scene
    assert all(value.isfinite().all() for value in scene.parameters())
    assert "latest.tar" in caplog.text and "--ckpt" not in caplog.text


def test_what_is_not_finite_is_never_the_best(finetune, tmp_path):
    assert finetune(num_steps=1) == 0
    scene = load_finetuned(tmp_path / NAME / "ckpts/latest.tar").scene
    values, best = (25.0, math.nan, 10.0), Best()
    assert [best.offer(scene, *pair) for pair in enumerate(values)] == [True, False, False]
    assert (best.psnr, best.step) == (25.0, 0)


def view(rgb, counted=True):
    plane = torch.full((8, 8), 1.0)
    picture = torch.full((3, 8, 8), 0.5)
    mask = torch.full((8, 8), counted)
    return ViewImages(picture + rgb, plane, plane, picture, plane * 0, mask)


def test_a_view_without_pixels_is_left_out_and_one_that_is_not_finite_is_not(arc_cameras):
    photos = torch.full((1, 3, 8, 8), 0.5)
    cameras = arc_cameras([0.0], (8, 8))
    views = Views(photos, cameras, photos[:, 0] * 0, torch.ones(1, 8, 8, dtype=torch.bool))
    tests = TestViews(views, (0,), Region(), 64)
    assert tests.mean_psnr([view(0.1), view(0.3, False)]) == pytest.approx(20, abs=1e-3)
    assert math.isnan(tests.mean_psnr([view(0.1), view(math.nan)]))
    assert math.isnan(tests.mean_psnr([view(0.1, False)]))


def test_pictures_that_cannot_be_written_stop_nothing(finetune, tmp_path, monkeypatch, caplog):
    def full(path: Path, *rest):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(record, "save_strip", full)
    assert finetune() == 0
    assert step_of(tmp_path / NAME / "ckpts/latest.tar") == 6
    assert "No space left" in caplog.text


def test_memory_that_runs_out_is_one_error_with_a_remedy(finetune, monkeypatch, caplog):
    def too_much(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40 GiB.")

    monkeypatch.setattr(loop, "step_losses", too_much)
    assert finetune() == 1
    assert "out of memory" in caplog.text and "--batch_size" in caplog.text


def test_the_best_is_written_before_the_file_that_speaks_of_it(finetune, monkeypatch):
    real, written = record.save_atomically, []

    def save(content, path):
        written.append(path.name)
        real(content, path)

    monkeypatch.setattr(record, "save_atomically", save)
    assert finetune(num_steps=2) == 0
    assert written[:2] == ["best.tar", "latest.tar"]
