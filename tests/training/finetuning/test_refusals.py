"""What fine-tuning refuses, in one line that names the remedy, and how it divides scenes."""

from dataclasses import replace

import pytest
import torch

from datasets.config import DataChoice
from datasets.protocols import check_split, read_split
from utils.checkpoints import load_safely, save_atomically
from utils.errors import UserError


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--datadir {dtu}/scan22", ["no scan 'scan22'", "scan2"]),
        ("--dataset_name llff --datadir {tmp}/llff/ferns", ["no such scene", "fern"]),
        ("--datadir {dtu} --scans scan1,scan2", ["fine-tuning takes one"]),
        ("--sources 1", ["1 training views", "2 are needed"]),
        ("--n_views 1", ["--n_views 1", "at least 2"]),
        ("--num_steps 0", ["num_steps=0"]),
        ("--batch_size 1 --targets_per_step 2", ["batch_size=1 pixels are fewer"]),
        ("--lrate_mpas 1", ["lrate_mpas"]),
        ("--init_ckpt {tmp}/none.ckpt", ["no such checkpoint"]),
        ("--init_ckpt {tmp}/other.ckpt", ["another backbone", "--vggt_path"]),
        ("--ckpt {general}", ["is not a fine-tuned scene"]),
        ("--ckpt {tmp}/broken.tar", ["is not a fine-tuned scene"]),
    ],
)
def test_refused_in_one_line(refused, general_checkpoint, tiny_dtu, tmp_path, flags, words):
    (tmp_path / "llff/fern").mkdir(parents=True)
    (tmp_path / "llff/fern/poses_bounds.npy").write_bytes(b"")
    torch.save({"state": 1}, tmp_path / "broken.tar")
    content = load_safely(general_checkpoint)
    content["vggt_nerf"]["backbone_fingerprint"] = "0123"
    save_atomically(content, tmp_path / "other.ckpt")
    flags = flags.format(dtu=tiny_dtu, general=general_checkpoint, tmp=tmp_path)
    refused(*words, argv=flags.split())


def test_views_are_divided_and_depth_stays_out(tiny_dtu):
    split = read_split(DataChoice(datadir=str(tiny_dtu / "scan2")), 3)
    assert not set(split.pool) & set(split.targets)
    assert sorted(split.pool + split.targets) == list(range(8))
    views = split.training_views()
    assert not views.depths.any() and views.masks.all()
    with pytest.raises(UserError, match="--targets"):
        check_split(replace(split, targets=()), 3)
    chosen = DataChoice(datadir=str(tiny_dtu / "scan2"), targets=(1,), sources=(0, 1, 5))
    assert read_split(chosen, 2).pool == (0, 5)
