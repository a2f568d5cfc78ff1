from dataclasses import replace

import pytest
import torch

from datasets.views import Sample, Views
from training.augmentation import draw_view_mask, perturb_cameras, vary_exposure
from training.config import AugmentationConfig
from utils.cameras import Cameras
from utils.devices import generator_for


def sample_of(scenes, views, images=None):
    depths = torch.ones(scenes, views, 4, 5)
    cameras = Cameras(
        torch.eye(3).expand(scenes, views, 3, 3), torch.eye(4).expand(scenes, views, 4, 4)
    )
    images = torch.rand(scenes, views, 3, 4, 5) if images is None else images
    both = Views(images, cameras, depths, depths > 0)
    return Sample(both, both, torch.tensor([[1.0, 2.0]] * scenes), (), (), ())


def test_exposure_differs_between_scenes_and_a_little_between_views():
    before = sample_of(60, 20, torch.full((60, 20, 3, 4, 5), 0.2))
    after = vary_exposure(before, generator_for("cpu", 1))
    views = torch.cat([after.sources.images, after.targets.images], 1).mean((3, 4)).log()
    assert views.mean((1, 2)).std() > 0.1
    # Views of a scene: by how much they differ is its own.
    spread = views.mean(2).std(1)
    assert spread.min() < 0.005 < 0.06 < spread.max() < 0.15
    channels = (views - views.mean(2, keepdim=True)).std(1).mean(1)
    assert channels.max() < 0.04


def test_exposure_keeps_colours_in_range_and_black_black():
    dark = replace(sample_of(2, 3), sources=sample_of(2, 3, torch.zeros(2, 3, 3, 4, 5)).sources)
    varied = vary_exposure(dark, generator_for("cpu", 2))
    assert varied.sources.images.abs().max() == 0
    assert 0 <= varied.targets.images.min() and varied.targets.images.max() <= 1


def test_principal_points_of_a_scene_move_by_its_share_of_the_noise():
    before = sample_of(40, 500)
    after = perturb_cameras(before, 0.5, generator_for("cpu", 0))
    moved = after.sources.cameras.intrinsics - before.sources.cameras.intrinsics
    assert moved[..., :2].abs().max() == 0 and moved[..., 2, :].abs().max() == 0
    deviations = moved[..., :2, 2].std((1, 2))
    assert deviations.max() < 0.55 and deviations.min() < 0.1 < 0.4 < deviations.max()
    assert moved[..., :2, 2].mean().abs() < 0.01
    for name in ("images", "depths", "masks"):
        assert getattr(after.sources, name) is getattr(before.sources, name)
    assert after.targets is before.targets


def test_the_first_source_stays_and_the_others_go_independently():
    sources = sample_of(400, 4).sources
    view_mask = draw_view_mask(sources, 0.25, generator_for("cpu", 0))
    assert view_mask.shape == (400, 4) and view_mask[:, 0].all()
    assert view_mask[:, 1:].float().mean() == pytest.approx(0.75, abs=0.05)
    assert set(view_mask.sum(1).tolist()) == {1, 2, 3, 4}
    assert (draw_view_mask(sources, 1.0, generator_for("cpu", 0)).sum(1) == 1).all()
    again, other = (draw_view_mask(sources, 0.25, generator_for("cpu", seed)) for seed in (0, 1))
    assert torch.equal(again, view_mask) and not torch.equal(other, view_mask)


def test_nothing_is_drawn_where_nothing_changes():
    generator = torch.Generator().manual_seed(0)
    state, sample = generator.get_state(), sample_of(2, 4)
    assert perturb_cameras(sample, 0.0, generator) is sample
    assert draw_view_mask(sample.sources, 0.0, generator) is None
    assert draw_view_mask(sample_of(2, 1).sources, 0.5, generator) is None
    assert torch.equal(state, generator.get_state())


@pytest.mark.parametrize("values", [{"camera_noise": -0.1}, {"source_dropout": 1.5}])
def test_impossible_settings_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        AugmentationConfig(**values)
