from dataclasses import replace

import pytest
import torch

NEAR_FAR = torch.tensor([[2.0, 6.0]])
SIZE = (32, 40)


@pytest.fixture
def refined(tiny_model):
    """The refined prior of a scene."""
    return lambda scene: tiny_model.refine(scene, NEAR_FAR).prior


@pytest.fixture
def unrefined(tiny_model, make_views):
    """A scene of so many views whose prior is the backbone's."""
    return lambda count: tiny_model.encode(make_views(1, count), NEAR_FAR, refine=False)


@torch.no_grad()
def test_the_refined_prior_is_what_the_sources_see(tiny_model, refined, unrefined, encoded):
    scene = unrefined(3)
    prior = refined(scene)
    for view in range(3):
        seen, _ = tiny_model.find_surface(scene, scene.cameras[:, view], NEAR_FAR, SIZE)
        torch.testing.assert_close(prior.depth[:, view], seen)
    assert (prior.confidence >= 0).all() and (prior.confidence <= 1).all()
    torch.testing.assert_close(encoded.prior.depth, prior.depth)
    torch.testing.assert_close(encoded.prior.confidence, prior.confidence)


@pytest.mark.parametrize(("views", "reliability"), [(2, 1.0), (1, 0.25)])
def test_several_cameras_make_a_refined_prior_reliable(refined, unrefined, views, reliability):
    scene = unrefined(views)
    doubted = replace(scene, prior=replace(scene.prior, reliability=torch.tensor([0.25])))
    assert refined(doubted).reliability.item() == reliability


def test_missing_views_get_no_confidence_and_change_nothing(refined, unrefined):
    scene = replace(unrefined(3), view_mask=torch.tensor([[True, True, False]]))
    without = refined(scene)
    assert without.confidence[:, 2].abs().max() == 0
    depth, images = scene.prior.depth.clone(), scene.images.clone()
    depth[:, 2], images[:, 2] = 3.3, 0.5
    changed = replace(scene, prior=replace(scene.prior, depth=depth), images=images)
    changed = refined(changed)
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
