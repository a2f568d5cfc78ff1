"""What fine-tuning refuses, in one line that names the remedy, and how it divides scenes."""

import dataclasses

import pytest
import torch

from datasets.config import DataChoice
from datasets.protocols import check_split, read_split
from utils.checkpoints import load_safely, save_atomically
from utils.errors import UserError


@pytest.fixture
def refused(finetune, caplog, capsys):
    def check(*words, argv=(), **flags):
        assert finetune(*argv, **flags) == 2
        said = caplog.text + capsys.readouterr().err
        for word in words:
            assert str(word) in said, said

    return check


def test_a_missing_scan(refused, tiny_dtu, tmp_path):
    refused("no scan 'scan22'", "scan2", datadir=tiny_dtu / "scan22")
    (tmp_path / "llff/fern").mkdir(parents=True)
    (tmp_path / "llff/fern/poses_bounds.npy").write_bytes(b"")
    refused("no such scene", "fern", dataset_name="llff", datadir=tmp_path / "llff/ferns")


def test_many_scans_at_once(refused, tiny_dtu):
    refused("one is fine-tuned at a time", argv=("--scans", "scan1,scan2"), datadir=tiny_dtu)


def test_one_source_view(refused):
    refused("1 training views", "at least 2", argv=("--sources", 1))
    refused("--n_views 1", "at least 2", n_views=1)


def test_no_test_view(drawn_split):
    with pytest.raises(UserError, match="--targets"):
        drawn_split(test_ids=())


def test_another_backbone(refused, general_checkpoint, tmp_path):
    content = load_safely(general_checkpoint)
    content["vggt_nerf"]["backbone_fingerprint"] = "0123"
    save_atomically(content, tmp_path / "other.ckpt")
    refused("another backbone", "--vggt_path", init_ckpt=tmp_path / "other.ckpt")


def test_files_of_another_kind(refused, general_checkpoint, tmp_path):
    refused("is not a fine-tuned scene", argv=("--ckpt", general_checkpoint))
    refused("no such checkpoint", init_ckpt=tmp_path / "none.ckpt")
    torch.save({"state": 1}, tmp_path / "broken.tar")
    refused("is not a fine-tuned scene", argv=("--ckpt", tmp_path / "broken.tar"))


def test_another_scene_s_file(finetune, refused, tiny_dtu, tmp_path):
    assert finetune(num_steps=1) == 0
    latest = tmp_path / "runs/scan2/vggt_finetune_scan2/ckpts/latest.tar"
    ours = tiny_dtu / "scan1"
    refused("is of scene 'scan2'", tiny_dtu / "scan2", argv=("--ckpt", latest), datadir=ours)
    best = latest.with_name("best.tar")
    refused("resume from latest.tar", argv=("--ckpt", best))


def test_impossible_settings(refused):
    refused("num_steps=0", num_steps=0)
    refused("lpips_weight=0.1", lpips_weight=0.1)
    refused("lrate_mpas", argv=("--lrate_mpas", 1))


def test_views_are_divided_and_depth_stays_out(tiny_dtu):
    split = read_split(DataChoice(datadir=str(tiny_dtu / "scan2")), 3)
    assert not set(split.train_ids) & set(split.test_ids)
    assert sorted(split.train_ids + split.test_ids) == list(range(8))
    views = split.training_views()
    assert not views.depths.any() and views.masks.all()
    chosen = DataChoice(datadir=str(tiny_dtu / "scan2"), targets=(1,), sources=(0, 1, 5))
    assert read_split(chosen, 2).train_ids == (0, 5)


@pytest.fixture
def drawn_split(tiny_dtu):
    def check(**changes):
        split = read_split(DataChoice(datadir=str(tiny_dtu / "scan2")), 3)
        check_split(dataclasses.replace(split, **changes), 3)

    return check
