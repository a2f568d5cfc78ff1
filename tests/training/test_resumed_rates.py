"""A resumed run learns at the rates that it is given then."""

import pytest
import torch
from training_runs import train

from training.config import FineTuningConfig, GeneralTrainingConfig
from training.vggt.config import MiniTrainingConfig
from utils.checkpoints import load_safely
from utils.config import parse_config

pytestmark = pytest.mark.filterwarnings("default")


def rates_at_steps(kind, monkeypatch, folder, *flags, at=None):
    """Train; return the learning rates that the optimiser has at each step, and the file."""
    rates, real = {}, kind.module.optimizer_step

    def step(module, *args, **kwargs):
        optimizer = module.optimizers()
        rates[module.global_step] = [group["lr"] for group in optimizer.param_groups]
        real(module, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(kind.module, "optimizer_step", step)
        return rates, train(kind, folder, *flags, at=at)[1]


def test_general_training(general, monkeypatch, tmp_path, caplog):
    usual, whole = rates_at_steps(general, monkeypatch, tmp_path / "whole")
    _, path = rates_at_steps(general, monkeypatch, tmp_path, at=4)
    flags = ("--ckpt", path, "--lrate", 1e-3)
    doubled, path = rates_at_steps(general, monkeypatch, tmp_path, *flags)
    assert sorted(doubled) == list(range(4, 9))
    for step, rates in doubled.items():
        assert rates == pytest.approx([2 * rate for rate in usual[step]])
    assert "changed settings: optimizer.lrate=0.001 here, 0.0005 there" in caplog.text
    ours, theirs = (load_safely(each)["state_dict"] for each in (path, whole))
    assert not all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_fine_tuning(scene, monkeypatch, tmp_path, caplog):
    usual, _ = rates_at_steps(scene, monkeypatch, tmp_path / "whole")
    _, path = rates_at_steps(scene, monkeypatch, tmp_path, at=4)
    flags = ("--ckpt", path, "--lrate", 1e-3, "--lrate_maps", 1e-3, "--warmup_steps", 49)
    changed, path = rates_at_steps(scene, monkeypatch, tmp_path, *flags)
    assert sorted(changed) == [4, 5]
    for step, rates in changed.items():
        assert rates == pytest.approx([2 * usual[step][0], usual[step][1] / 2])
    told = [line for line in caplog.text.splitlines() if "from the next step on" in line]
    assert len(told) == 1 and "lrate=0.001, not 0.0005, lrate_maps=0.001, not 0.002" in told[0]
    assert "have priority:" not in caplog.text
    header = load_safely(path)["vggt_nerf_scene"]
    assert header["settings"]["optimizer"]["lrate"] == 1e-3


def test_a_given_rate_counts_though_it_is_the_usual_one(scene, monkeypatch, tmp_path, caplog):
    _, path = rates_at_steps(scene, monkeypatch, tmp_path, "--lrate", 1e-3, at=4)
    usual, _ = rates_at_steps(scene, monkeypatch, tmp_path, "--ckpt", path, "--lrate", 5e-4, at=5)
    assert "with lrate=0.0005, not 0.001 from" in caplog.text
    kept, _ = rates_at_steps(scene, monkeypatch, tmp_path, "--ckpt", path)
    assert kept[4][0] == pytest.approx(2 * usual[4][0]) and kept[4][1] == usual[4][1]
    caplog.clear()
    rates_at_steps(scene, monkeypatch, tmp_path, "--ckpt", path, "--num_steps", 4000)
    assert "have priority: optimizer.num_steps=6, not 4000" in caplog.text


@pytest.mark.parametrize("value", ["inf", "1e20", "nan", "-1", "0"])
@pytest.mark.parametrize("config", [GeneralTrainingConfig, FineTuningConfig, MiniTrainingConfig])
def test_rates_that_nothing_learns_with_are_refused(config, value, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_config(config, [f"--lrate={value}"])
    assert stop.value.code == 2
    assert f"lrate={float(value)!r} must lie in (0, 10]" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["lrate_maps", "ssim_weight", "guide_weight"])
@pytest.mark.parametrize("value", ["inf", "1e20", "nan"])
def test_so_are_other_rates_and_weights(name, value, capsys):
    with pytest.raises(SystemExit):
        parse_config(FineTuningConfig, [f"--{name}={value}"])
    assert f"{name}={float(value)!r} must lie in [0, 1" in capsys.readouterr().err
