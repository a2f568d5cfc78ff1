"""The mean of backbones, as users make it."""

from dataclasses import replace

import pytest
import torch

from apps import average_backbones
from models.vggt.network import VGGT, random_vggt
from models.vggt.weights import read_config


@pytest.fixture
def backbones(tiny_backbone, tmp_path):
    config = read_config(tiny_backbone)
    for seed in (0, 1):
        random_vggt(config, seed=seed).save_pretrained(tmp_path / f"run{seed}")
    wider = replace(config, embed_dim=2 * config.embed_dim)
    random_vggt(wider, seed=0).save_pretrained(tmp_path / "wider")
    return tmp_path


def run(folder, *names):
    return average_backbones.main(
        [*(str(folder / name) for name in names), "--out", str(folder / "mean")]
    )


def test_the_mean_lies_half_way_and_loads_as_a_backbone(backbones):
    assert run(backbones, "run0", "run1") == 0
    one, two, mean = (
        VGGT.from_pretrained(backbones / name).state_dict() for name in ("run0", "run1", "mean")
    )
    assert mean.keys() == one.keys()
    for name, value in mean.items():
        expected = (one[name] + two[name]) / 2
        torch.testing.assert_close(value, expected, atol=1e-3, rtol=1e-3, msg=name)
    assert any(not torch.equal(mean[name], one[name]) for name in mean)


@pytest.mark.parametrize(
    ("names", "words"), [(["run0", "wider"], "another size"), (["run0"], "at least two")]
)
def test_refusals(backbones, caplog, names, words):
    assert run(backbones, *names) == 2
    assert words in caplog.text
    assert not (backbones / "mean").exists()
