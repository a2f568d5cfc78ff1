"""The mean of backbones, as users make it."""

from dataclasses import replace

import pytest
import torch
from commands import status_of

from apps import average_backbones
from models.vggt.network import VGGT, random_vggt
from models.vggt.weights import read_config


@pytest.fixture
def backbones(tiny_backbone, tmp_path):
    config = read_config(tiny_backbone)
    wider = replace(config, embed_dim=2 * config.embed_dim)
    for seed, (name, sizes) in enumerate({"run0": config, "run1": config, "wider": wider}.items()):
        random_vggt(sizes, seed=seed).save_pretrained(tmp_path / name)
    return tmp_path


def run(folder, *names):
    return status_of(average_backbones.main, *map(folder.joinpath, names), "--out", folder / "mean")


def test_the_mean_lies_half_way_and_loads_as_a_backbone(backbones):
    assert run(backbones, "run0", "run1") == 0
    one, two, mean = (
        VGGT.from_pretrained(backbones / name).state_dict() for name in ("run0", "run1", "mean")
    )
    assert mean.keys() == one.keys()
    for name, value in mean.items():
        torch.testing.assert_close(value, (one[name] + two[name]) / 2, atol=1e-3, rtol=1e-3)
    assert any(not torch.equal(mean[name], one[name]) for name in mean)


@pytest.mark.parametrize(
    ("names", "words"), [(["run0", "wider"], "another size"), (["run0"], "at least two")]
)
def test_refusals(backbones, assert_refused, names, words):
    assert_refused(run(backbones, *names), [words])
    assert not (backbones / "mean").exists()
