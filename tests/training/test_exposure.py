from dataclasses import replace

import pytest
import torch

from datasets.views import Sample, Views
from training.exposure import ExposureConfig, vary_exposure
from utils.cameras import Cameras


def views(images):
    batch, count, _, height, width = images.shape
    cameras = Cameras(
        torch.eye(3).expand(batch, count, 3, 3), torch.eye(4).expand(batch, count, 4, 4)
    )
    depths = torch.ones(batch, count, height, width)
    return Views(images, cameras, depths, depths > 0)


@pytest.fixture
def sample():
    images = torch.rand(2, 3, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    return Sample(views(images), views(images[:, :1]), torch.tensor([[1.0, 2.0]] * 2), (), (), ())


def test_sources_and_targets_change_alike_and_scenes_differ(sample):
    varied = vary_exposure(sample, ExposureConfig(), torch.Generator().manual_seed(1))
    torch.testing.assert_close(varied.sources.images[:, :1], varied.targets.images)
    factor = varied.targets.images.mean((1, 2, 3, 4)) / sample.targets.images.mean((1, 2, 3, 4))
    assert (factor[0] - factor[1]).abs() > 1e-3


def test_colours_stay_in_range_and_black_stays_black(sample):
    dark = replace(sample, sources=views(torch.zeros(2, 3, 3, 4, 5)))
    varied = vary_exposure(dark, ExposureConfig(1.0, 1.0, 1.0), torch.Generator().manual_seed(2))
    assert varied.sources.images.abs().max() == 0
    assert 0 <= varied.targets.images.min() and varied.targets.images.max() <= 1


def test_no_spread_changes_nothing(sample):
    varied = vary_exposure(sample, ExposureConfig(0.0, 0.0, 0.0), torch.Generator())
    torch.testing.assert_close(varied.sources.images, sample.sources.images)
