from dataclasses import replace

import pytest
import torch

from models.cost_volume import FINE_CELLS, CostVolume, volume_grid
from models.depth_refinement import expected_surface, refine_depth_prior
from models.ray_sampling import DepthPlanes

NEAR_FAR = torch.tensor([[2.0, 6.0]])
SIZE = (32, 40)


@pytest.fixture
def find(tiny_model):
    return lambda scene, camera: tiny_model.find_surface(scene, camera, NEAR_FAR, SIZE)


@pytest.fixture
def unrefined(tiny_model, make_views):
    """A scene of so many views whose prior is the backbone's."""
    return lambda count: tiny_model.encode(make_views(1, count), NEAR_FAR, refine=False)


def test_a_surface_lies_at_the_mass_around_the_likeliest_plane(camera):
    weights = torch.zeros(1, 8, 1, 2)
    # The first ray: half-way between planes 2 and 3, and a fainter surface far behind, which the
    # depth must not be drawn to. The second sees next to nothing.
    weights[0, 2, 0, 0] = weights[0, 3, 0, 0] = 0.35
    weights[0, 7, 0, 0] = 0.3
    weights[0, 5, 0, 1] = 0.01
    planes, features = DepthPlanes(NEAR_FAR, 8), torch.zeros(1, 1, 8, 1, 2)
    depth, mass = expected_surface(CostVolume(camera, SIZE, planes, weights, features))
    torch.testing.assert_close(depth, torch.tensor([[[2.0 + 4 * 3 / 8, 2.0 + 4 * 5.5 / 8]]]))
    torch.testing.assert_close(mass, torch.tensor([[[0.7, 0.01]]]))


@torch.no_grad()
def test_the_refined_prior_is_what_the_sources_see(find, unrefined, encoded):
    scene = unrefined(3)
    prior = refine_depth_prior(find, scene)
    for view in range(3):
        seen, _ = find(scene, scene.cameras[:, view])
        torch.testing.assert_close(prior.depth[:, view], seen)
    assert (prior.confidence >= 0).all() and (prior.confidence <= 1).all()
    torch.testing.assert_close(encoded.prior.depth, prior.depth)
    torch.testing.assert_close(encoded.prior.confidence, prior.confidence)


def test_volumes_of_sources_are_finer_than_those_of_targets(tiny_model, make_views):
    size = (40, 400)
    scene = tiny_model.encode(make_views(1, 2, size), NEAR_FAR)
    assert scene.prior.depth.shape[2:] == volume_grid(size, FINE_CELLS) == (10, 100)
    volume = tiny_model.build_cost_volume(scene, scene.cameras[:, 0], NEAR_FAR, size)
    assert volume.weights.shape[2:] == volume_grid(size) == (8, 80)


@pytest.mark.parametrize(("views", "reliability"), [(2, 1.0), (1, 0.25)])
def test_several_cameras_make_a_refined_prior_reliable(find, unrefined, views, reliability):
    scene = unrefined(views)
    doubted = replace(scene, prior=replace(scene.prior, reliability=torch.tensor([0.25])))
    assert refine_depth_prior(find, doubted).reliability.item() == reliability


def test_missing_views_get_no_confidence_and_change_nothing(find, unrefined):
    scene = replace(unrefined(3), view_mask=torch.tensor([[True, True, False]]))
    without = refine_depth_prior(find, scene)
    assert without.confidence[:, 2].abs().max() == 0
    depth, images = scene.prior.depth.clone(), scene.images.clone()
    depth[:, 2], images[:, 2] = 3.3, 0.5
    changed = replace(scene, prior=replace(scene.prior, depth=depth), images=images)
    changed = refine_depth_prior(find, changed)
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
