"""Which samples in front of a surface count as solid."""

import pytest
import torch

from benchmarks.empty_space import solid_fractions


def test_samples_before_the_surface_count():
    t = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).expand(3, 4)
    alphas = torch.tensor([[0.0, 0.9, 0.0, 1.0], [0.4, 0.4, 0.4, 1.0], [1.0, 0.0, 0.0, 0.0]])
    light = torch.cat([torch.ones(3, 1), (1 - alphas).cumprod(1)[:, :-1]], 1)
    surface = torch.tensor([4.0, 4.0, 0.0])
    found = solid_fractions(alphas * light, t, surface, 0.5)
    # Of six samples before known surfaces one is solid; of two rays both lose half of their light.
    assert found["solid"] == pytest.approx(1 / 6)
    assert found["blocked"] == 1.0
    found = solid_fractions(alphas * light, t, torch.tensor([2.2, 2.2, 0.0]), 0.5)
    assert found == {"solid": 0.0, "blocked": 0.0}
    assert solid_fractions(alphas, t, torch.zeros(3), 0.5)["solid"] is None
