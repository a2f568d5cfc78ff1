"""Parts of a training step: colours, average, optimiser."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from training import augmentation
from training.augmentation import jitter_colours
from training.vggt import module
from training.vggt.config import OptimizerConfig
from training.vggt.module import build_optimizer, update_average


def test_average_follows_slowly_and_forgets_its_start(monkeypatch):
    monkeypatch.setattr(module, "EMA_DECAY", 0.9)
    network, average = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    nn.init.ones_(network.weight)
    nn.init.zeros_(average.weight)
    update_average(average, network, step=0)
    torch.testing.assert_close(average.weight, torch.full((2, 2), 0.9))
    update_average(average, network, step=10_000)
    torch.testing.assert_close(average.weight, torch.full((2, 2), 0.91))


def test_jitter_is_per_view_within_range_and_reproducible():
    grey = torch.full((2, 3, 3, 4, 5), 0.5)

    def jittered(seed):
        return jitter_colours(grey, torch.Generator().manual_seed(seed))

    first = jittered(0)
    assert torch.equal(first, jittered(0))
    assert not torch.equal(first, jittered(1))
    assert first.mean((2, 3, 4)).unique().numel() == 6
    assert first.min() >= 0 and first.max() <= 1


def test_no_jitter_changes_nothing_and_grey_is_grey(monkeypatch):
    images = torch.rand(1, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    for name in ("_BRIGHTNESS", "_CONTRAST", "_SATURATION", "_WHITE_BALANCE", "_GREY_SHARE"):
        monkeypatch.setattr(augmentation, name, 0.0)
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(jitter_colours(images, generator), images)
    monkeypatch.setattr(augmentation, "_GREY_SHARE", 1.0)
    grey = jitter_colours(images, generator)
    torch.testing.assert_close(grey[:, :, :1].expand_as(grey), grey)


@pytest.mark.filterwarnings("ignore:To get the last learning rate")
def test_schedule_and_weight_decay(monkeypatch):
    monkeypatch.setattr(module, "LRATE_END", 0.1)
    config = OptimizerConfig(lrate=1.0, warmup_steps=4, max_steps=104)
    network = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    optimizer, schedule = build_optimizer(network.named_parameters(), config)
    rates = []
    for _ in range(106):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[54] == pytest.approx(0.55)
    assert rates[104] == rates[105] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[4:]))
    decayed, exempt = optimizer.param_groups
    assert decayed["weight_decay"] > 0
    assert [p.shape for p in decayed["params"]] == [(2, 2)]
    assert exempt["weight_decay"] == 0
