"""A training run from its first step to its export, interrupted or not."""

import itertools
import signal
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import train_vggt_mini_pl
from models.vggt.network import VGGT, random_vggt
from training.vggt import run
from training.vggt.evaluation import comparison_table
from training.vggt.run import run_mini_training
from utils.errors import NonFiniteTrainingError, TrainingInterrupted, UserError


@pytest.fixture(autouse=True)
def lightning_may_complain():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", module="lightning_fabric")
        warnings.filterwarnings("ignore", message="To get the last learning rate computed by")
        yield


def with_run(config, **changes):
    return replace(config, run=replace(config.run, **changes))


def last_checkpoint(config):
    return Path(config.run.save_dir) / config.run.expname / "ckpts" / "last.ckpt"


def saved(config):
    return torch.load(last_checkpoint(config), weights_only=True)


def run_and_read(config, source, **changes):
    """What a run with these changes leaves in its checkpoint."""
    config = with_run(config, **changes)
    run_mini_training(config, source)
    return saved(config)


def assert_same(actual, expected):
    assert actual["global_step"] == expected["global_step"] == 8
    for key, value in expected["state_dict"].items():
        assert torch.equal(actual["state_dict"][key], value), key
    rates = [c["optimizer_states"][0]["param_groups"][0]["lr"] for c in (actual, expected)]
    assert rates[0] == rates[1]


def as_earlier_version(checkpoint):
    """Give a checkpoint PyTorch's plain schedule, and settings as they were grouped before."""
    settings = {name: dict(group) for name, group in checkpoint["vggt_mini"].items()}
    until = settings["optimizer"].pop("matching_until")
    settings["matching"] = {"matching_until": until, "matching_dim": 64, "attention_heads": 1}
    settings["run"]["accelerator"] = settings["run"].pop("device")
    rates, step = [settings["optimizer"]["lrate"]] * 2, checkpoint["global_step"]
    schedule = {"base_lrs": rates, "last_epoch": step, "_step_count": step + 1}
    schedule["lr_lambdas"] = [None, None]
    return checkpoint | {"lr_schedulers": [schedule], "vggt_mini": settings}


def test_trains_exports_and_resumes_to_the_same_bits(training_config, plane_source):
    whole = with_run(training_config, expname="whole")
    exported = run_mini_training(whole, plane_source)
    expected = saved(whole)
    for key, value in VGGT.from_pretrained(exported).state_dict().items():
        average = expected["state_dict"][f"average.{key}"]
        torch.testing.assert_close(value, average, rtol=1e-3, atol=1e-6)

    stopped = run_and_read(training_config, plane_source, expname="parts", stop_at=5)
    path = last_checkpoint(with_run(training_config, expname="parts"))
    resumed = run_and_read(training_config, plane_source, expname="parts", ckpt=str(path))
    assert_same(resumed, expected)
    torch.save(as_earlier_version(stopped), path.with_name("old.ckpt"))
    old = str(path.with_name("old.ckpt"))
    assert_same(run_and_read(training_config, plane_source, expname="old", ckpt=old), expected)


def test_refuses_to_resume_another_network_or_other_losses(training_config, plane_source):
    checkpoint = run_and_read(training_config, plane_source, stop_at=1, val_every=100)
    path = last_checkpoint(training_config)
    resumed = with_run(training_config, ckpt=str(path))
    other = replace(resumed, network=replace(training_config.network, features=16))
    with pytest.raises(UserError, match=r"network\.features=16 here, 8 there"):
        run_mini_training(other, plane_source)
    checkpoint["vggt_mini"]["loss"] = {"fov_weight": 1.0}
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=r"fov_weight=1\.0: this version no longer supports it"):
        run_mini_training(resumed, plane_source)


def test_learns_the_plane(training_config, plane_source):
    optimizer = replace(training_config.optimizer, max_steps=60, warmup_steps=5, lrate=3e-3)
    config = with_run(replace(training_config, optimizer=optimizer), val_every=60)
    config = replace(config, replay=replace(training_config.replay, visits=1))
    network = VGGT.from_pretrained(run_mini_training(config, plane_source))
    lines = comparison_table(network, plane_source, config.held_out)
    table = {line.split()[0]: line.split()[1:] for line in lines}
    assert float(table["abs_rel"][0]) < 0.9 * float(table["abs_rel"][1])
    assert float(table["within_125"][0]) > 0.5


def test_exported_weights_are_evaluated_on_held_out_scenes(network_config, tmp_path, caplog):
    random_vggt(network_config, seed=0).save_pretrained(tmp_path)
    sizes = "--val_scenes 2 --val_views 2 --val_height 28 --val_width 42 --samples 1"
    argv = ["--evaluate", str(tmp_path), "--device", "cpu", *sizes.split()]
    with caplog.at_level("INFO"):
        assert train_vggt_mini_pl.main(argv) == 0
    assert "trivial" in caplog.text and "auc_30" in caplog.text


def test_a_new_run_starts_from_exported_weights(training_config, plane_source):
    exported = run_mini_training(with_run(training_config, expname="first"), plane_source)
    # One step whose learning rate rounds to nothing leaves the weights as they came.
    still = replace(training_config.optimizer, lrate=1e-12, max_steps=1)
    config = with_run(training_config, expname="next", init_weights=str(exported))
    config = replace(config, optimizer=still)
    state = run_and_read(config, plane_source)["state_dict"]
    for key, value in VGGT.from_pretrained(exported).state_dict().items():
        torch.testing.assert_close(state[f"network.{key}"], value, rtol=0, atol=1e-9)
    other = replace(config, network=replace(config.network, features=16))
    with pytest.raises(UserError, match=r"has features=8, but the settings say 16"):
        run_mini_training(other, plane_source)


def test_half_precision_trains_and_keeps_float32_state(training_config, plane_source):
    flags = {"network_precision": "bf16", "stop_at": 2, "val_every": 100}
    for value in run_and_read(training_config, plane_source, **flags)["state_dict"].values():
        assert value.dtype == torch.float32 and value.isfinite().all()


def poisoned(source, bad):
    """Make the images of some rendered batches, by their number, not a number."""

    render, calls = source.render, itertools.count()

    def poisoned_render(prepared):
        batch = render(prepared)
        if bad(next(calls)):
            batch.views.images.fill_(torch.nan)
        return batch

    source.render = poisoned_render
    return source


def test_a_non_finite_step_changes_nothing(training_config, plane_source):
    source = poisoned(plane_source, lambda call: call == 0)
    state = run_and_read(training_config, source, stop_at=1, val_every=100)["state_dict"]
    for key in (key for key in state if key.startswith("network.")):
        assert state[key].isfinite().all()
        torch.testing.assert_close(state[key], state[key.replace("network.", "average.")])


def test_repeated_non_finite_steps_stop_the_run(training_config, plane_source, monkeypatch):
    monkeypatch.setattr(run, "_MAX_BAD_STEPS", 3)
    config = replace(training_config, replay=replace(training_config.replay, visits=1))
    with pytest.raises(NonFiniteTrainingError, match="3 steps in a row"):
        run_mini_training(config, poisoned(plane_source, lambda call: call > 0))


def test_a_signal_saves_before_it_stops(training_config, plane_source):
    def interrupt(call):
        if call == 1:
            signal.raise_signal(signal.SIGTERM)
        return False

    with pytest.raises(TrainingInterrupted, match="SIGTERM"):
        run_mini_training(training_config, poisoned(plane_source, interrupt))
    # The second batch of scenes is rendered in the third step, and that step is finished.
    assert saved(training_config)["global_step"] == 3


def test_workers_plan_the_same_scenes(training_config, plane_source):
    alone, many = (
        run_and_read(training_config, plane_source, expname=f"workers{n}", num_workers=n)
        for n in (0, 2)
    )
    assert all(torch.equal(many["state_dict"][k], v) for k, v in alone["state_dict"].items())
