import math

import pytest
import torch

from models.ray_sampling import DepthPlanes
from models.single_rays import Rendering
from models.volume_rendering import Composite
from training.config import LossConfig
from training.losses import plane_entropy, rebin, rendering_losses
from training.ray_batches import TargetRays

NEAR_FAR = torch.tensor([[1.0, 5.0]])


def fake_rendering(rgb, depth, planes=4):
    weights = torch.full((*depth.shape, planes), 1 / planes)
    composite = Composite(rgb, depth, torch.ones_like(depth), weights)
    edges = torch.linspace(0, 1, planes + 1).expand(*depth.shape, -1)
    return Rendering(composite, edges, composite.weights, composite)


def rays(rgb, depth, valid, **patches):
    return TargetRays(torch.zeros(*depth.shape, 2), rgb, depth, valid, **patches)


def test_losses_by_hand():
    truth = rays(
        rgb=torch.zeros(1, 1, 3, 3),
        depth=torch.tensor([[[2.0, 0.0, 4.0]]]),
        valid=torch.tensor([[[True, True, False]]]),
    )
    rgb = torch.tensor([[[[0.1, 0.1, 0.1], [0.3, 0.3, 0.3], [float("inf")] * 3]]])
    rendering = fake_rendering(rgb, torch.tensor([[[3.0, 9.0, 9.0]]]))
    losses = rendering_losses(rendering, truth, NEAR_FAR, LossConfig(0.5, 2.0, 0.1))
    assert float(losses["fine"]) == pytest.approx((0.01 + 0.09) / 2)
    assert float(losses["depth"]) == pytest.approx(0.25)
    assert float(losses["planes"]) == pytest.approx(math.log(4), rel=1e-3)
    total = 0.05 * 1.5 + 2 * 0.25 + 0.1 * math.log(4)
    assert float(losses["total"]) == pytest.approx(total, rel=1e-3)


def test_depth_losses_without_depth_are_zero():
    truth = rays(torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2), torch.ones(1, 1, 2).bool())
    rendering = fake_rendering(torch.zeros(1, 1, 2, 3), torch.ones(1, 1, 2))
    losses = rendering_losses(rendering, truth, NEAR_FAR, LossConfig())
    assert all(float(losses[term]) == 0 for term in ("depth", "planes", "total"))


@pytest.mark.parametrize("lindisp", [False, True])
def test_plane_entropy_is_least_at_the_planes_around_the_true_depth(lindisp):
    planes = DepthPlanes(NEAR_FAR, 8, lindisp)
    depth = planes.depths(torch.tensor([[[3.25 / 8]]]))
    known = torch.ones(1, 1, 1, dtype=torch.bool)
    # A quarter short of the middle of plane 3: three quarters of plane 3, one quarter of plane 2.
    values = {
        plane: plane_entropy(torch.eye(8)[plane].reshape(1, 1, 1, 8), depth, known, planes)
        for plane in range(8)
    }
    assert min(values, key=values.get) == 3 and sorted(values, key=values.get)[1] == 2
    beyond = torch.full((1, 1, 1), 7.0)
    assert plane_entropy(torch.ones(1, 1, 1, 8), beyond, known, planes) == 0


def test_rebinned_weights_are_spread_evenly_and_none_is_lost():
    edges = torch.tensor([[[0.0, 0.1, 0.5, 1.0]]])
    weights = torch.tensor([[[0.2, 0.4, 0.3]]])
    new_edges = torch.tensor([[[0.0, 0.25, 0.5, 0.75, 1.0]]])
    expected = torch.tensor([[[0.2 + 0.15, 0.25, 0.15, 0.15]]])
    torch.testing.assert_close(rebin(edges, weights, new_edges), expected)


def test_dissimilarity_counts_whole_patches_only():
    generator = torch.Generator().manual_seed(0)
    truth_rgb = torch.rand(1, 1, 2 * 64 + 3, 3, generator=generator)
    valid = torch.ones(1, 1, 131, dtype=torch.bool)
    # The second patch has an invalid pixel and does not count.
    valid[0, 0, 70] = False
    truth = rays(truth_rgb, torch.zeros(1, 1, 131), valid, num_patches=2, patch_size=8)
    config, found = LossConfig(ssim_weight=1.0), []
    for spoilt in (slice(0, 0), slice(64, None), slice(0, 64)):
        rgb = truth_rgb.clone()
        rgb[:, :, spoilt] = 0.5
        rendering = fake_rendering(rgb, torch.ones(1, 1, 131))
        found.append(float(rendering_losses(rendering, truth, NEAR_FAR, config)["ssim"]))
    assert found[:2] == pytest.approx([0, 0], abs=1e-4) and found[2] > 0.3


def test_perceptual_distance_is_used_when_there_is_one():
    truth = rays(
        torch.zeros(1, 1, 64, 3),
        torch.zeros(1, 1, 64),
        torch.ones(1, 1, 64).bool(),
        num_patches=1,
        patch_size=8,
    )
    rendering = fake_rendering(torch.full((1, 1, 64, 3), 0.25), torch.ones(1, 1, 64))
    config = LossConfig(0.0, 0.0, 0.0, 0.0, lpips_weight=2.0)

    def distance(ours, theirs):
        return (ours - theirs).abs().mean((1, 2, 3))

    losses = rendering_losses(rendering, truth, NEAR_FAR, config, perceptual=distance)
    assert float(losses["lpips"]) == 0.25 and float(losses["total"]) == pytest.approx(0.0625 + 0.5)
    assert float(rendering_losses(rendering, truth, NEAR_FAR, config)["lpips"]) == 0


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="ssim_weight=-1"):
        LossConfig(ssim_weight=-1.0)
