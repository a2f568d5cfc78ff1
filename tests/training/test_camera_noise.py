import pytest
import torch

from datasets.views import Sample, Views
from training.camera_noise import CameraNoiseConfig, shake_cameras
from utils.cameras import Cameras


def sample_of(scenes, views):
    depths = torch.ones(scenes, views, 4, 5)
    cameras = Cameras(
        torch.eye(3).expand(scenes, views, 3, 3), torch.eye(4).expand(scenes, views, 4, 4)
    )
    both = Views(torch.rand(scenes, views, 3, 4, 5), cameras, depths, depths > 0)
    return Sample(both, both, torch.tensor([[1.0, 2.0]] * scenes), (), (), ())


def test_sources_point_elsewhere_by_a_share_of_the_noise_that_is_their_scenes():
    before = sample_of(40, 500)
    after = shake_cameras(before, CameraNoiseConfig(0.5), torch.Generator().manual_seed(0))
    moved = after.sources.cameras.intrinsics - before.sources.cameras.intrinsics
    assert moved[..., :2].abs().max() == 0 and moved[..., 2, :].abs().max() == 0
    deviations = moved[..., :2, 2].std((1, 2))
    assert deviations.max() < 0.55 and deviations.min() < 0.1 < 0.4 < deviations.max()
    assert moved[..., :2, 2].mean().abs() < 0.01
    for name in ("images", "depths", "masks"):
        assert getattr(after.sources, name) is getattr(before.sources, name)
    assert after.targets is before.targets


def test_no_noise_draws_nothing():
    before, generator = sample_of(1, 2), torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert shake_cameras(before, CameraNoiseConfig(), generator) is before
    assert torch.equal(state, generator.get_state())


def test_negative_noise_is_refused():
    with pytest.raises(ValueError, match=r"camera_noise=-0\.1"):
        CameraNoiseConfig(-0.1)
