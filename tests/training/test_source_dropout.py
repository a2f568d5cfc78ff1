import pytest
import torch

from datasets.views import Views
from training.source_dropout import SourceDropoutConfig, draw_view_mask
from utils.cameras import Cameras
from utils.seeding import generator_for


def views(batch, count):
    cameras = Cameras(
        torch.eye(3).expand(batch, count, 3, 3), torch.eye(4).expand(batch, count, 4, 4)
    )
    depths = torch.ones(batch, count, 2, 2)
    return Views(torch.ones(batch, count, 3, 2, 2), cameras, depths, depths > 0)


def draw(sources, probability, *key):
    config = SourceDropoutConfig(probability)
    return draw_view_mask(sources, config, generator_for("cpu", 0, *key))


def test_the_first_source_stays_and_the_others_go_independently():
    view_mask = draw(views(400, 4), 0.25)
    assert view_mask.shape == (400, 4) and view_mask[:, 0].all()
    assert view_mask[:, 1:].float().mean() == pytest.approx(0.75, abs=0.05)
    assert set(view_mask.sum(1).tolist()) == {1, 2, 3, 4}
    assert (draw(views(3, 4), 1.0).sum(1) == 1).all()


def test_a_step_draws_the_same_again_and_another_step_something_else():
    sources = views(50, 4)
    assert torch.equal(draw(sources, 0.5, 7), draw(sources, 0.5, 7))
    assert not torch.equal(draw(sources, 0.5, 7), draw(sources, 0.5, 8))


def test_nothing_is_drawn_where_nothing_can_go():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert draw_view_mask(views(2, 4), SourceDropoutConfig(0.0), generator) is None
    assert draw_view_mask(views(2, 1), SourceDropoutConfig(0.5), generator) is None
    assert torch.equal(generator.get_state(), before)


def test_what_is_no_probability():
    with pytest.raises(ValueError, match="source_dropout=1.5"):
        SourceDropoutConfig(1.5)
