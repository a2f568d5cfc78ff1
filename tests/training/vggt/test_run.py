"""A training run from its first step to its export, interrupted or not."""

import itertools
import signal
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import train_vggt_mini_pl
from datasets.views import Views
from models.vggt import VGGT
from models.vggt.config import VGGTConfig
from models.vggt.network import random_vggt
from training.vggt import module
from training.vggt.config import MiniTrainingConfig
from training.vggt.evaluation import comparison_table
from training.vggt.run import run_mini_training
from training.vggt.scenes import SceneSource
from utils.errors import NonFiniteTrainingError, TrainingInterrupted, UserError


@pytest.fixture(autouse=True)
def lightning_may_complain():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", module="lightning_fabric")
        warnings.filterwarnings("ignore", message="To get the last learning rate computed by")
        yield


def with_run(config: MiniTrainingConfig, **changes: Any) -> MiniTrainingConfig:
    return replace(config, run=replace(config.run, **changes))


def last_checkpoint(config: MiniTrainingConfig) -> Path:
    return Path(config.run.save_dir) / config.run.expname / "ckpts" / "last.ckpt"


def test_trains_exports_and_resumes_to_the_same_bits(
    training_config: MiniTrainingConfig, plane_source: SceneSource
):
    whole = with_run(training_config, expname="whole")
    exported = run_mini_training(whole, plane_source)
    first = with_run(training_config, expname="parts", stop_at=5)
    run_mini_training(first, plane_source)
    second = with_run(training_config, expname="parts", ckpt=str(last_checkpoint(first)))
    run_mini_training(second, plane_source)
    expected = torch.load(last_checkpoint(whole), weights_only=True)
    actual = torch.load(last_checkpoint(second), weights_only=True)
    assert actual["global_step"] == expected["global_step"] == 8
    for key, value in expected["state_dict"].items():
        assert torch.equal(actual["state_dict"][key], value), key
    assert (
        actual["optimizer_states"][0]["param_groups"][0]["lr"]
        == (expected["optimizer_states"][0]["param_groups"][0]["lr"])
    )
    average = VGGT.from_pretrained(exported).state_dict()
    for key, value in average.items():
        torch.testing.assert_close(
            value, expected["state_dict"][f"average.{key}"], rtol=1e-3, atol=1e-6
        )


def test_a_run_of_an_earlier_version_is_resumed_exactly(
    training_config: MiniTrainingConfig, plane_source: SceneSource
):
    whole = with_run(training_config, expname="whole")
    run_mini_training(whole, plane_source)
    first = with_run(training_config, expname="parts", stop_at=5)
    run_mini_training(first, plane_source)
    checkpoint = torch.load(last_checkpoint(first), weights_only=True)
    # PyTorch's plain schedule, and settings in other groups or constant since.
    rates = [training_config.optimizer.lrate] * 2
    schedule = {"base_lrs": rates, "last_epoch": 5, "_step_count": 6, "lr_lambdas": [None, None]}
    settings = checkpoint["vggt_mini"]
    del settings["optimizer"]["matching_until"]
    settings["matching"] = {"matching_until": 6, "matching_dim": 64, "attention_blocks": (2, 4)}
    settings["run"]["accelerator"] = settings["run"].pop("device")
    old = last_checkpoint(first).with_name("old.ckpt")
    torch.save(checkpoint | {"lr_schedulers": [schedule], "vggt_mini": settings}, old)
    run_mini_training(with_run(training_config, expname="parts", ckpt=str(old)), plane_source)
    expected = torch.load(last_checkpoint(whole), weights_only=True)["state_dict"]
    actual = torch.load(last_checkpoint(first), weights_only=True)["state_dict"]
    assert all(torch.equal(actual[key], value) for key, value in expected.items())
    torch.save(checkpoint | {"vggt_mini": {**settings, "loss": {"fov_weight": 1.0}}}, old)
    with pytest.raises(UserError, match=r"fov_weight=1\.0: this version no longer supports it"):
        run_mini_training(with_run(training_config, ckpt=str(old)), plane_source)


def test_learns_the_plane(training_config: MiniTrainingConfig, plane_source: SceneSource):
    optimizer = replace(training_config.optimizer, max_steps=60, warmup_steps=5, lrate=3e-3)
    config = replace(
        with_run(training_config, val_every=60),
        optimizer=optimizer,
        replay=replace(training_config.replay, visits=1),
    )
    network = VGGT.from_pretrained(run_mini_training(config, plane_source))
    sample = partial(plane_source.sample, device=torch.device("cpu"))
    lines = comparison_table(network, sample, config.held_out)
    table = {line.split()[0]: line.split()[1:] for line in lines}
    assert float(table["abs_rel"][0]) < 0.9 * float(table["abs_rel"][1])
    assert float(table["within_125"][0]) > 0.5


def test_exported_weights_are_evaluated_on_held_out_scenes(
    network_config: VGGTConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    random_vggt(network_config, seed=0).save_pretrained(tmp_path)
    sizes = "--val_scenes 2 --val_views 2 --val_height 28 --val_width 42 --samples 1"
    argv = ["--evaluate", str(tmp_path), "--device", "cpu", *sizes.split()]
    with caplog.at_level("INFO"):
        assert train_vggt_mini_pl.main(argv) == 0
    assert "trivial" in caplog.text and "auc_30" in caplog.text


def test_a_new_run_starts_from_exported_weights(
    training_config: MiniTrainingConfig, plane_source: SceneSource
):
    exported = run_mini_training(with_run(training_config, expname="first"), plane_source)
    # One step whose learning rate rounds to nothing leaves the weights as they came.
    still = replace(training_config.optimizer, lrate=1e-12, max_steps=1)
    config = replace(
        with_run(training_config, expname="next", init_weights=str(exported)), optimizer=still
    )
    run_mini_training(config, plane_source)
    state = torch.load(last_checkpoint(config), weights_only=True)["state_dict"]
    for key, value in VGGT.from_pretrained(exported).state_dict().items():
        torch.testing.assert_close(state[f"network.{key}"], value, rtol=0, atol=1e-9)
    other = replace(config, network=replace(config.network, features=16))
    with pytest.raises(UserError, match=r"has features=8, but the settings say 16"):
        run_mini_training(other, plane_source)


def test_half_precision_trains_and_keeps_float32_state(
    training_config: MiniTrainingConfig, plane_source: SceneSource
):
    config = with_run(training_config, network_precision="bf16", stop_at=2, val_every=100)
    run_mini_training(config, plane_source)
    state = torch.load(last_checkpoint(config), weights_only=True)["state_dict"]
    for value in state.values():
        assert value.dtype == torch.float32
        assert value.isfinite().all()


def poisoned(source: SceneSource, bad: Callable[[int], bool]) -> SceneSource:
    """Make the images of some steps not a number."""

    def make(device: torch.device) -> Callable[[Any], Views]:
        render, calls = source.make_renderer(device), itertools.count()

        def poisoned_render(prepared: Any) -> Views:
            views = render(prepared)
            if bad(next(calls)):
                return replace(views, images=torch.full_like(views.images, torch.nan))
            return views

        return poisoned_render

    return SceneSource(source.prepare, make)


def test_a_non_finite_step_changes_nothing(
    training_config: MiniTrainingConfig, plane_source: SceneSource
):
    config = with_run(training_config, stop_at=1, val_every=100)
    run_mini_training(config, poisoned(plane_source, lambda call: call == 0))
    state = torch.load(last_checkpoint(config), weights_only=True)["state_dict"]
    for key, value in state.items():
        if key.startswith("network."):
            average = state[key.replace("network.", "average.")]
            assert value.isfinite().all()
            torch.testing.assert_close(value, average)


def test_repeated_non_finite_steps_stop_the_run(
    training_config: MiniTrainingConfig,
    plane_source: SceneSource,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(module, "MAX_BAD_STEPS", 3)
    config = replace(training_config, replay=replace(training_config.replay, visits=1))
    with pytest.raises(NonFiniteTrainingError, match="3 steps in a row"):
        run_mini_training(config, poisoned(plane_source, lambda call: call > 0))


def test_a_signal_saves_before_it_stops(
    training_config: MiniTrainingConfig, plane_source: SceneSource
):
    def interrupt(call: int) -> bool:
        if call == 1:
            signal.raise_signal(signal.SIGTERM)
        return False

    with pytest.raises(TrainingInterrupted, match="SIGTERM"):
        run_mini_training(training_config, poisoned(plane_source, interrupt))
    # The second batch of scenes is rendered in the third step, and that step is finished.
    assert torch.load(last_checkpoint(training_config), weights_only=True)["global_step"] == 3


def test_refuses_to_resume_another_network(
    training_config: MiniTrainingConfig, plane_source: SceneSource
):
    run_mini_training(with_run(training_config, stop_at=1, val_every=100), plane_source)
    other = replace(training_config, network=replace(training_config.network, features=16))
    with pytest.raises(UserError, match=r"network\.features=16 here, 8 there"):
        run_mini_training(with_run(other, ckpt=str(last_checkpoint(training_config))), plane_source)


def test_workers_plan_the_same_scenes(
    training_config: MiniTrainingConfig, plane_source: SceneSource
):
    results = []
    for workers in (0, 2):
        config = with_run(training_config, expname=f"workers{workers}", num_workers=workers)
        run_mini_training(config, plane_source)
        results.append(torch.load(last_checkpoint(config), weights_only=True)["state_dict"])
    assert all(torch.equal(results[1][key], value) for key, value in results[0].items())
