"""What fine-tuning refuses, in one line that names the remedy, and how it divides scenes."""

import dataclasses

import pytest

from datasets.config import DataChoice
from datasets.protocols import check_split, read_split
from utils.errors import UserError


def test_a_missing_scan(refused, tiny_dtu, tmp_path):
    refused("no scan 'scan22'", "scan2", datadir=tiny_dtu / "scan22")
    (tmp_path / "llff/fern").mkdir(parents=True)
    (tmp_path / "llff/fern/poses_bounds.npy").write_bytes(b"")
    refused("no such scene", "fern", dataset_name="llff", datadir=tmp_path / "llff/ferns")


def test_many_scans_at_once(refused, tiny_dtu):
    refused("one is fine-tuned at a time", argv=("--scans", "scan1,scan2"), datadir=tiny_dtu)


def test_one_source_view(refused):
    refused("1 training views", "2 are needed", argv=("--sources", 1))
    refused("--n_views 1", "at least 2", n_views=1)


def test_no_test_view(drawn_split):
    with pytest.raises(UserError, match="--targets"):
        drawn_split(targets=())


def test_views_are_divided_and_depth_stays_out(tiny_dtu):
    split = read_split(DataChoice(datadir=str(tiny_dtu / "scan2")), 3)
    assert not set(split.pool) & set(split.targets)
    assert sorted(split.pool + split.targets) == list(range(8))
    views = split.training_views()
    assert not views.depths.any() and views.masks.all()
    chosen = DataChoice(datadir=str(tiny_dtu / "scan2"), targets=(1,), sources=(0, 1, 5))
    assert read_split(chosen, 2).pool == (0, 5)


@pytest.fixture
def drawn_split(tiny_dtu):
    def check(**changes):
        split = read_split(DataChoice(datadir=str(tiny_dtu / "scan2")), 3)
        check_split(dataclasses.replace(split, **changes), 3)

    return check
