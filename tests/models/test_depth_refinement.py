from dataclasses import replace

import pytest
import torch

from models.cost_volume import FINE_CELLS, CostVolume, volume_grid
from models.depth_refinement import expected_surface, refine_depth_prior
from models.ray_sampling import DepthPlanes

NEAR_FAR = torch.tensor([[2.0, 6.0]])
SIZE = (32, 40)


def volume_with(weights, cameras, near_far=NEAR_FAR):
    planes = DepthPlanes(near_far, weights.shape[1])
    return CostVolume(cameras, SIZE, planes, weights, torch.zeros(1, 1, *weights.shape[1:]))


def refine(model, scene, near_far=NEAR_FAR):
    return refine_depth_prior(
        lambda s, cameras: model.build_cost_volume(s, cameras, near_far, SIZE), scene
    )


def test_a_surface_lies_at_the_mass_around_the_likeliest_plane(make_cameras):
    weights = torch.zeros(1, 8, 1, 2)
    # The first ray: half-way between planes 2 and 3, and a fainter surface far behind, which the
    # depth must not be drawn to. The second sees next to nothing.
    weights[0, 2, 0, 0] = weights[0, 3, 0, 0] = 0.35
    weights[0, 7, 0, 0] = 0.3
    weights[0, 5, 0, 1] = 0.01
    depth, mass = expected_surface(volume_with(weights, make_cameras(1)))
    torch.testing.assert_close(depth, torch.tensor([[[2.0 + 4 * 3 / 8, 2.0 + 4 * 5.5 / 8]]]))
    torch.testing.assert_close(mass, torch.tensor([[[0.7, 0.01]]]))


def test_the_refined_prior_is_what_the_sources_see(tiny_model, make_views):
    scene = tiny_model.encode(make_views(1, 3), NEAR_FAR, refine=False)
    prior = refine(tiny_model, scene)
    for view in range(3):
        with torch.no_grad():
            volume = tiny_model.build_cost_volume(scene, scene.cameras[:, view], NEAR_FAR, SIZE)
        torch.testing.assert_close(prior.depth[:, view], expected_surface(volume)[0])
    assert (prior.confidence >= 0).all() and (prior.confidence <= 1).all()
    encoded = tiny_model.encode(make_views(1, 3), NEAR_FAR).prior
    torch.testing.assert_close(encoded.depth, prior.depth)
    torch.testing.assert_close(encoded.confidence, prior.confidence)


def test_volumes_of_sources_are_finer_than_those_of_targets(tiny_model, make_views):
    size = (40, 400)
    scene = tiny_model.encode(make_views(1, 2, size), NEAR_FAR)
    assert scene.prior.depth.shape[2:] == volume_grid(size, FINE_CELLS) == (10, 100)
    volume = tiny_model.build_cost_volume(scene, scene.cameras[:, 0], NEAR_FAR, size)
    assert volume.weights.shape[2:] == volume_grid(size) == (8, 80)


def test_cameras_make_a_refined_prior_reliable_but_a_single_view_does_not(tiny_model, make_views):
    several = tiny_model.encode(make_views(1, 2), NEAR_FAR, refine=False)
    doubted = replace(several.prior, reliability=torch.tensor([0.25]))
    assert refine(tiny_model, replace(several, prior=doubted)).reliability.item() == 1
    alone = tiny_model.encode(make_views(1, 1), NEAR_FAR, refine=False)
    doubted = replace(alone.prior, reliability=torch.tensor([0.25]))
    assert refine(tiny_model, replace(alone, prior=doubted)).reliability.item() == 0.25


def test_missing_views_get_no_confidence_and_change_nothing(tiny_model, make_views):
    scene = tiny_model.encode(make_views(1, 3), NEAR_FAR, refine=False)
    view_mask = torch.tensor([[True, True, False]])
    without = refine(tiny_model, replace(scene, view_mask=view_mask))
    assert without.confidence[:, 2].abs().max() == 0
    other = replace(scene.prior, depth=scene.prior.depth.clone())
    other.depth[:, 2] = 3.3
    images = scene.images.clone()
    images[:, 2] = 0.5
    changed = refine(tiny_model, replace(scene, prior=other, images=images, view_mask=view_mask))
    torch.testing.assert_close(changed.confidence, without.confidence)
    torch.testing.assert_close(changed.depth[:, :2], without.depth[:, :2])


@pytest.mark.parametrize("bf16", [False, True])
def test_refinement_keeps_the_gradients_of_training(tiny_model, make_views, bf16):
    """Some versions of torch go on with weights that autocast has cast without gradients."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        scene = tiny_model.encode(make_views(1, 3), NEAR_FAR)
        volume = tiny_model.build_cost_volume(scene, scene.cameras[:, 0], NEAR_FAR, SIZE)
        volume.weights.square().sum().backward()
    assert not scene.prior.depth.requires_grad
    for name, parameter in tiny_model.volume.network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
