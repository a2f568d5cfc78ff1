"""The parts of fine-tuning, each against a closed form or a slow, obvious reference."""

import pytest
import torch

from models.source_selection import Frames, choose_sources
from training.finetuning_optimization import SceneOptimizerConfig
from training.finetuning_step import mass_between

SIZE = (32, 40)
NEAR_FAR = torch.tensor([2.0, 8.0])


def test_sources_are_near_cover_the_picture_and_are_never_the_view_itself(arc_cameras):
    cameras = arc_cameras([-1.0, -0.6, -0.2, 0.0, 0.2, 0.6, 1.0])
    frames, own = Frames(cameras, SIZE), torch.arange(7)
    chosen = choose_sources(frames, frames, NEAR_FAR, 3, own=own)
    assert chosen.shape == (7, 3)
    for view, sources in enumerate(chosen.tolist()):
        assert view not in sources and len(set(sources)) == 3
    assert set(chosen[3, :2].tolist()) == {2, 4}
    # One that is not in the pool may have its double there.
    assert choose_sources(frames, frames, NEAR_FAR, 1)[:, 0].tolist() == list(range(7))


def test_sources_look_the_same_way(arc_cameras):
    """A camera at the same place that looks away is no source."""
    cameras = arc_cameras([0.0, 0.3])
    away = arc_cameras([0.01])
    away.c2w[:, :3, 0] *= -1
    away.c2w[:, :3, 2] *= -1
    pool = Frames(
        type(cameras)(
            torch.cat([away.intrinsics, cameras.intrinsics[1:]]),
            torch.cat([away.c2w, cameras.c2w[1:]]),
        ),
        SIZE,
    )
    assert choose_sources(Frames(cameras[:1], SIZE), pool, NEAR_FAR, 1).item() == 1


def test_mass_is_spread_evenly_and_none_is_lost():
    edges = torch.tensor([[[0.0, 0.1, 0.5, 1.0]]])
    weights = torch.tensor([[[0.2, 0.4, 0.3]]])
    borders = torch.tensor([[0.0, 0.25, 0.5, 0.75, 1.0]])
    expected = torch.tensor([[[0.2 + 0.15, 0.25, 0.15, 0.15]]])
    torch.testing.assert_close(mass_between(edges, weights, borders), expected)


def test_learning_rates_rise_and_fall():
    config = SceneOptimizerConfig(num_steps=100, warmup_steps=10, lrate_end=0.1)
    factors = [config.factor(step) for step in range(101)]
    assert factors[0] < factors[5] < factors[10] == 1.0
    assert factors[100] == pytest.approx(0.1)
    assert sorted(factors[10:], reverse=True) == factors[10:]
