"""A view that is absent is as good as none, whatever lies in its place."""

from dataclasses import replace

import pytest
import torch

from datasets.views import Views
from models.bundles import whole_window
from models.encoder import fill_missing_views
from models.vggt.backbone import NullBackbone
from models.vggt_nerf import VGGTNeRF
from utils.cameras import Cameras

NEAR_FAR = torch.tensor([[2.0, 6.0], [2.0, 7.0]])
PRESENT = torch.tensor([[True, False, True, True], [True, True, False, False]])
SIZE = (32, 40)


@pytest.fixture
def model_without_backbone(tiny_model):
    torch.manual_seed(0)
    return VGGTNeRF(tiny_model.config, NullBackbone()).eval()


@torch.no_grad()
def render(model, views, near_far=NEAR_FAR, view_mask=None):
    scene = model.encode(views, near_far, view_mask)
    cameras = views.cameras[:, 0]
    target = model.build_cost_volume(scene, cameras, near_far, SIZE)
    return model.render_window(scene, target, window(len(near_far)))


def window(count):
    return whole_window(SIZE, 2, count, torch.device("cpu"))


def parts(rendering):
    levels = [level.weights for level in rendering.levels]
    return [rendering.rgb, *levels, *vars(rendering.bundles.composite).values()]


def test_what_lies_in_the_place_of_an_absent_view_has_no_influence(tiny_model, make_views):
    views, others = make_views(2, 4), make_views(2, 4, seed=1)
    absent = ~PRESENT[:, :, None, None]
    c2w = torch.where(absent, torch.eye(4), views.cameras.c2w)
    changed = Views(
        torch.where(absent[..., None], others.images, views.images),
        Cameras(views.cameras.intrinsics, c2w),
        views.depths,
        views.masks,
    )
    ours, theirs = (render(tiny_model, some, view_mask=PRESENT) for some in (views, changed))
    for one, other in zip(parts(ours), parts(theirs), strict=True):
        assert torch.equal(one, other)
    everyone, plain = render(tiny_model, views, view_mask=PRESENT | True), render(tiny_model, views)
    torch.testing.assert_close(parts(everyone), parts(plain), atol=1e-6, rtol=1e-6)
    assert not torch.equal(plain.rgb, ours.rgb)


def test_without_a_backbone_an_absent_view_is_no_view_at_all(model_without_backbone, make_views):
    views = make_views(2, 4)
    ours = render(model_without_backbone, views, view_mask=PRESENT)
    for place, view_mask in enumerate(PRESENT):
        few = views.take(view_mask.nonzero()[:, 0].tolist())
        one = Views(
            few.images[[place]], few.cameras[[place]], few.depths[[place]], few.masks[[place]]
        )
        theirs = render(model_without_backbone, one, NEAR_FAR[[place]])
        for value, expected in zip(parts(ours), parts(theirs), strict=True):
            torch.testing.assert_close(value[[place]], expected, atol=2e-4, rtol=1e-4)


def test_absent_views_show_the_first_that_is_present(make_views):
    views = make_views(2, 4)
    covered = fill_missing_views(views, ~PRESENT)
    for scene, chosen in enumerate(([1, 1, 1, 1], [2, 2, 2, 3])):
        assert torch.equal(covered.images[scene], views.images[scene, chosen])
        assert torch.equal(covered.cameras.c2w[scene], views.cameras.c2w[scene, chosen])


def test_no_gradient_reaches_an_absent_view(tiny_model, make_views):
    views = make_views(2, 4)
    images = views.images.clone().requires_grad_()
    scene = tiny_model.encode(replace(views, images=images), NEAR_FAR, PRESENT)
    target = tiny_model.build_cost_volume(scene, views.cameras[:, 0], NEAR_FAR, SIZE)
    tiny_model.render_window(scene, target, window(2)).rgb.sum().backward()
    assert images.grad is not None and images.grad[PRESENT].abs().sum() > 0
    assert images.grad[~PRESENT].abs().sum() == 0
