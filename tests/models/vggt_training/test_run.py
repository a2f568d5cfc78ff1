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

from datasets.replay import SceneRequest
from datasets.views import Views
from models.training.checkpointing import TrainingInterrupted
from models.training.gradient_guard import NonFiniteTrainingError
from models.vggt import VGGT
from models.vggt_training.held_out import (
    HeldOutConfig,
    comparison_table,
    evaluate_held_out,
)
from models.vggt_training.mini_config import MiniTrainingConfig
from models.vggt_training.mini_run import run_mini_training
from models.vggt_training.scenes import SceneSource, procedural_source
from utils.errors import UserError


@pytest.fixture(autouse=True)
def lightning_may_complain():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", module="lightning_fabric")
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


def test_learns_the_plane(training_config: MiniTrainingConfig, plane_source: SceneSource):
    optimizer = replace(training_config.optimizer, max_steps=60, warmup_steps=5, lrate=3e-3)
    config = replace(
        with_run(training_config, val_every=60),
        optimizer=optimizer,
        replay=replace(training_config.replay, visits=1),
    )
    exported = run_mini_training(config, plane_source)
    metrics = comparison_table(
        VGGT.from_pretrained(exported),
        partial(plane_source.sample, device=torch.device("cpu")),
        config.held_out,
    )
    table = {line.split()[0]: line.split()[1:] for line in metrics}
    assert float(table["abs_rel"][0]) < 0.9 * float(table["abs_rel"][1])
    assert float(table["within_125"][0]) > 0.5


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
    training_config: MiniTrainingConfig, plane_source: SceneSource
):
    config = replace(
        training_config,
        optimizer=replace(training_config.optimizer, max_bad_steps=3),
        replay=replace(training_config.replay, visits=1),
    )
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


def test_held_out_scenes_are_shared_out_and_counted_once(plane_source: SceneSource):
    config = HeldOutConfig(val_scenes=7, val_batch=2, val_height=28, val_width=42, val_views=2)
    requests = [request for rank in range(3) for request in config.requests(rank, 3)]
    assert sorted(scene for request in requests for scene in request.scene_ids) == list(range(7))
    seen: list[int] = []

    def counting(request: SceneRequest) -> Views:
        seen.extend(request.scene_ids)
        return plane_source.sample(request, torch.device("cpu"))

    def cheat(views: Views) -> tuple[torch.Tensor, torch.Tensor]:
        return views.depths, torch.ones(*views.depths.shape[:2], 9)

    metrics = evaluate_held_out(cheat, counting, config)
    assert seen == list(range(7))
    assert metrics["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert metrics["within_103"] == 1


def test_procedural_scenes_arrive(training_config: MiniTrainingConfig):
    source = procedural_source(training_config.scenes)
    request = SceneRequest(range(2), 2, (14, 28), 0.0)
    views = source.sample(request, torch.device("cpu"))
    assert views.images.shape == (2, 2, 3, 14, 28)
    again = source.make_renderer(torch.device("cpu"))(source.prepare(request))
    assert torch.equal(views.images, again.images)


@pytest.mark.parametrize(
    "change", [{"val_views": 1}, {"val_scenes": 0}, {"val_scenes": 10**7}, {"val_batch": 0}]
)
def test_refuses_held_out_scenes_that_prove_nothing(change: dict):
    with pytest.raises(ValueError, match="val_"):
        HeldOutConfig(**change)
