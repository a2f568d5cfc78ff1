"""The training script as users run it: what it refuses, before any work and in one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train_vggt_nerf_finetuning_pl
import train_vggt_nerf_pl
from training.config import FineTuningConfig, GeneralTrainingConfig
from training.vggt.config import MiniTrainingConfig
from utils.config import parse_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def refused(run_main, monkeypatch):
    """Run the script's main in this process and check its one error."""
    monkeypatch.chdir(ROOT)

    def check(argv, *words):
        status, said = run_main(train_vggt_nerf_pl.main, *argv)
        assert status == 2 and all(str(word) in said for word in words), said

    return check


def test_help_documents_the_flags_that_matter(capsys):
    for main in (train_vggt_nerf_pl.main, train_vggt_nerf_finetuning_pl.main):
        with pytest.raises(SystemExit):
            main(["--help"])
        out = capsys.readouterr().out
        for text in ("--N_samples", "--expname", "pixels", "--ckpt", "--device", "--help-all"):
            assert text in out
        assert "--fine_planes" not in out


def config_class_of(name):
    if name.endswith("_finetune.txt"):
        return FineTuningConfig
    return MiniTrainingConfig if name == "vggt_mini.txt" else GeneralTrainingConfig


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.txt")), ids=lambda p: p.name)
def test_every_config_file_parses_for_its_script(config):
    parsed = parse_config(config_class_of(config.name), ["--config", str(config)])
    assert parsed != config_class_of(config.name)()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--pyramid_width", "40"], "pyramid_width=40 must be a multiple of 16"),
        (["--pyramid_width", "0"], "pyramid_width=0 must be at least 16"),
        (["--feature_channels", "0"], "feature_channels=0 must be at least 4"),
        (["--ray_heads", "0"], "ray_heads=0 must be at least 1"),
        (["--similarity_groups", "0"], "similarity_groups=0 must be at least 1"),
        (["--volume_groups", "0"], "volume_groups=0 must be at least 1"),
        (["--dataset_name", "colmap", "--near_far", "1"], "near_far=(1.0,) takes 2 numbers"),
        (["--mix", "dtu:x", "--near_far", "1", "9"], "near_far cannot be chosen for a mix"),
    ],
)
def test_values_that_no_model_or_reader_takes(refused, flags, words):
    refused(flags, words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            "--random_backbone false --backbone_size 500",
            ["backbone_size=500 must be a positive multiple of the patch 14", "490 or 504"],
        ),
        ("--config {tmp}/c.txt", ["N_sampels", "did you mean --N_samples"]),
        ("--vggt_path {tmp}/none", ["{tmp}/none", "hf download facebook/VGGT-1B"]),
        ("--save_dir {tmp}/file", ["cannot write here", "--save_dir"]),
        ("--ckpt {tmp}/absent.ckpt", ["absent.ckpt"]),
        ("--ckpt {tmp}/epoch={{epoch:02d}}/x.ckpt", ["epoch={{epoch:02d}}/x.ckpt"]),
        ("--ckpt {tmp}/foreign.ckpt", ["foreign.ckpt"]),
    ],
)
def test_what_cannot_be_read_or_written(refused, tiny_flags, tmp_path, flags, words):
    (tmp_path / "c.txt").write_text("N_sampels = 3\n")
    (tmp_path / "file").write_text("")
    (tmp_path / "foreign.ckpt").write_bytes(b"not a checkpoint")
    argv = [*tiny_flags, "--save_dir", tmp_path, *flags.format(tmp=tmp_path).split()]
    refused(argv, *(word.format(tmp=tmp_path) for word in words))


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("flag", ["--ckpt", "--init_ckpt"])
def test_hostile_checkpoint_runs_no_code(refused, tiny_flags, tmp_path, flag):
    trap = tmp_path / "trap"
    torch.save({"state_dict": {"x": Evil(trap)}, "vggt_nerf": {}}, tmp_path / "evil.ckpt")
    path = tmp_path / "evil.ckpt"
    refused([*tiny_flags, "--save_dir", tmp_path, flag, path], "evil.ckpt: refused")
    assert not trap.exists()


def test_unreadable_image_names_the_file_without_a_traceback(tiny_flags, tiny_dtu, tmp_path):
    copy = shutil.copytree(tiny_dtu, tmp_path / "dtu")
    for file in copy.glob("Rectified/*/rect_00*"):
        file.write_bytes(file.read_bytes()[:100])
    flags = [*tiny_flags, "--datadir", copy, "--save_dir", tmp_path / "runs"]
    command = [sys.executable, "train_vggt_nerf_pl.py", *map(str, flags)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    assert "rect_00" in result.stderr
