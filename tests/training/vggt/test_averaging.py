from dataclasses import replace

import pytest
import torch

from apps import average_backbones
from models.vggt.initialization import random_vggt
from models.vggt.loading import read_config
from models.vggt.network import VGGT
from training.vggt.export import export_vggt


@pytest.fixture
def backbones(tiny_backbone, tmp_path):
    config = read_config(tiny_backbone)
    for seed in (0, 1):
        export_vggt(random_vggt(config, seed=seed), tmp_path / f"run{seed}")
    return tmp_path


def run(folder, *names, out="mean"):
    return average_backbones.main(
        [*(str(folder / name) for name in names), "--out", str(folder / out)]
    )


def test_the_mean_lies_half_way_and_loads_as_a_backbone(backbones):
    assert run(backbones, "run0", "run1") == 0
    one, two, mean = (
        VGGT.from_pretrained(str(backbones / name)).state_dict()
        for name in ("run0", "run1", "mean")
    )
    assert mean.keys() == one.keys()
    for name, value in mean.items():
        expected = (one[name].float() + two[name].float()) / 2
        torch.testing.assert_close(value.float(), expected, atol=1e-3, rtol=1e-3, msg=name)
    assert any(not torch.equal(mean[name], one[name]) for name in mean)


def test_backbones_of_other_sizes_are_refused(backbones, tmp_path, capsys, caplog):
    config = read_config(backbones / "run0")
    wider = replace(config, embed_dim=2 * config.embed_dim)
    export_vggt(random_vggt(wider, seed=0), tmp_path / "other")
    assert run(backbones, "run0", "other") == 2
    assert "another size" in capsys.readouterr().err + caplog.text
    assert not (tmp_path / "mean").exists()


def test_one_backbone_is_no_mean(backbones, capsys, caplog):
    assert run(backbones, "run0") == 2
    assert "at least two" in capsys.readouterr().err + caplog.text
