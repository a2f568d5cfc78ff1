"""Schedules, the gradient guard, the averaged weights."""

from itertools import pairwise
from unittest.mock import MagicMock

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from training import callbacks
from training.callbacks import GradientGuard
from training.config import OptimizerConfig
from training.optimization import LRATE_END, AveragedWeights, build_optimizer, warmup_cosine
from utils.errors import NonFiniteTrainingError


def general_schedule():
    config = OptimizerConfig(lrate=1.0, warmup_steps=4)
    return build_optimizer([("x", nn.Parameter(torch.zeros(1)))], config, 20)


def plain_schedule():
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=1.0)
    steps = {"warmup_steps": 4, "total_steps": 20, "end_share": LRATE_END}
    return optimizer, warmup_cosine(optimizer, **steps)


def rates_of(build, steps, saved=None):
    optimizer, schedule = build()
    if saved:
        optimizer.load_state_dict(saved[0])
        schedule.load_state_dict(saved[1])
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates, (optimizer.state_dict(), schedule.state_dict())


@pytest.mark.parametrize(
    ("build", "rise"),
    [(general_schedule, [0, 0.25, 0.5, 0.75, 1, 1]), (plain_schedule, [0.2, 0.4, 0.6, 0.8, 1])],
)
def test_learning_rates_rise_and_fall_and_resume(build, rise):
    whole, _ = rates_of(build, 20)
    assert whole[: len(rise)] == pytest.approx(rise)
    assert all(a > b for a, b in pairwise(whole[len(rise) - 1 :]))
    assert LRATE_END <= whole[-1] < 0.06
    assert rates_of(build, 22)[0][-1] == pytest.approx(LRATE_END)
    for cut in (2, 4, 5, 11):
        first, state = rates_of(build, cut)
        assert first + rates_of(build, 20 - cut, state)[0] == whole, cut


def test_a_schedule_of_the_version_before_resumes():
    """warmup-scheduler counted warm-up and decay apart."""
    whole, _ = rates_of(general_schedule, 20)
    _, schedule = general_schedule()
    schedule.load_state_dict({"last_epoch": 3, "finished": False, "after_scheduler": {}})
    assert schedule.get_last_lr() == [whole[3]]
    schedule.load_state_dict(
        {"last_epoch": 5, "finished": True, "after_scheduler": {"last_epoch": 6}}
    )
    assert schedule.get_last_lr() == [whole[11]]


def test_the_backbone_learns_at_a_rate_of_its_own():
    parameters = [(name, nn.Parameter(torch.zeros(1))) for name in ("backbone.x", "field.x")]
    optimizer, _ = build_optimizer(parameters, OptimizerConfig(lrate=1.0, backbone_lrate=0.1), 20)
    assert [group["initial_lr"] for group in optimizer.param_groups] == [1.0, 0.1]
    assert optimizer.param_groups[1]["params"] == [parameters[0][1]]


@pytest.fixture
def guarded():
    """Take steps with given gradients, guarded; returns the weights after each."""

    def build(make_optimizer, **limits):
        weight = nn.Parameter(torch.ones(3))
        optimizer, guard = make_optimizer([weight]), GradientGuard(**limits)

        def step(*gradient):
            weight.grad = torch.tensor(gradient)
            guard.apply(optimizer, step=7)
            optimizer.step()
            return weight.detach().clone()

        return step, guard

    return build


@pytest.mark.parametrize("fused", [True, False])
def test_bad_gradients_leave_the_weights_alone_and_stop_the_run(guarded, monkeypatch, fused):
    monkeypatch.setattr(callbacks, "READ_EVERY", 2)
    step, guard = guarded(lambda p: torch.optim.AdamW(p, lr=0.1, fused=fused), max_bad_steps=3)
    before = step(1.0, 0.0, 0.0)
    for value in (float("nan"), float("inf")):
        assert torch.equal(step(value, 0.0, 0.0), before)
    assert guard.state() == [2, 2]
    before, last = step(1.0, 0.0, 0.0), before
    assert guard.state() == [2, 0] and not torch.equal(before, last)
    with pytest.raises(NonFiniteTrainingError, match="[34] steps in a row .* step 7"):
        for _ in range(4):
            assert torch.equal(step(float("nan"), 1.0, 0.0), before)


def test_a_short_run_of_bad_steps_alone_fails(guarded):
    step, guard = guarded(lambda p: torch.optim.AdamW(p, lr=0.1), max_bad_steps=20)
    module = MagicMock(spec=pl.LightningModule)

    def trainer_at(number):
        return MagicMock(spec=pl.Trainer, global_step=number)

    for value in (float("nan"), float("nan"), float("inf")):
        step(value, 0.0, 0.0)
    guard.on_train_end(trainer_at(30), module)
    with pytest.raises(NonFiniteTrainingError, match="the last 3 steps had non-finite gradients"):
        guard.on_train_end(trainer_at(3), module)
    step(1.0, 0.0, 0.0)
    guard.on_train_end(trainer_at(4), module)


def test_gradients_are_clipped_to_the_norm(guarded):
    step, _ = guarded(lambda p: torch.optim.SGD(p, lr=1.0))
    torch.testing.assert_close(
        step(3.0, 4.0, 0.0), torch.tensor([0.4, 0.2, 1.0]), atol=1e-5, rtol=0
    )


def averaged(values, decay):
    parameter = nn.Parameter(torch.tensor([float(values[0])]))
    average = AveragedWeights([parameter], decay)
    for value in values[1:]:
        parameter.data.fill_(value)
        average.update()
    return parameter, average


def test_early_steps_count_by_their_number_and_late_ones_by_the_decay():
    # After the first update a tenth of the start is left, after the second 2/11 of that mean.
    parameter, average = averaged([1, 2, 4], 0.9)
    first = 0.1 * 1 + 0.9 * 2
    torch.testing.assert_close(average.values[0], torch.tensor([2 / 11 * first + 9 / 11 * 4]))
    _, average = averaged([0] + [1] * 500 + [3], 0.9)
    torch.testing.assert_close(average.values[0], torch.tensor([0.9 * 1 + 0.1 * 3]))
    parameter, average = averaged([0, 1, 5], 0.0)
    assert torch.equal(average.values[0], parameter.detach())


def test_the_average_replaces_the_weights_for_a_while_and_the_optimizer_goes_on():
    parameter, average = averaged([0, 1, 2], 0.9)
    optimizer, mean = torch.optim.SGD([parameter], lr=1.0), average.values[0].clone()
    with average.in_place():
        assert torch.equal(parameter, mean)
    assert parameter.item() == 2 and torch.equal(average.values[0], mean)
    parameter.grad = torch.tensor([0.5])
    optimizer.step()
    assert parameter.item() == 1.5


def test_the_average_resumes():
    parameter, average = averaged([0, 1, 2, 4], 0.9)
    copy = nn.Parameter(average.values[0].clone())
    resumed = AveragedWeights([copy], 0.9)
    resumed.restore(average.state())
    assert torch.equal(copy, parameter)
    for one in (average, resumed):
        one.update()
    assert torch.equal(average.values[0], resumed.values[0])
