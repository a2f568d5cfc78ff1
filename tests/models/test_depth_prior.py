"""The scale of the backbone's depth, on a scene whose depth and cameras are known exactly."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from datasets.views import Views
from models.depth_prior import build_depth_prior
from models.depth_scale import center_scale, patch_descriptors
from models.vggt.backbone import BackboneFeatures
from models.vggt.pose_encoding import encode_pose
from utils.cameras import Cameras

UNIT = 137.0
"""Millimetres per unit of the pretended backbone."""
NEAR_FAR = torch.tensor([[425.0, 905.0]])


@pytest.fixture
def views(tiny_scene):
    chosen = [0, 2, 5]
    intrinsics = torch.tensor(tiny_scene.file_intrinsics).float()
    intrinsics[:2] *= 4
    intrinsics[:2, 2] += 0.25
    c2w = torch.tensor(tiny_scene.w2c[chosen]).inverse().float()
    cameras = Cameras(intrinsics.expand(1, 3, 3, 3), c2w[None])
    images = torch.tensor(tiny_scene.images[chosen]).permute(0, 3, 1, 2).float() / 255
    depths = torch.tensor(tiny_scene.depths[chosen])[None]
    return Views(images[None], cameras, depths, torch.ones_like(depths, dtype=torch.bool))


def backbone(views, camera_noise=0.0, depth_noise=0.0):
    """What a backbone would say that knows the scene up to scale and noise."""
    generator = torch.Generator().manual_seed(0)
    bumps = torch.randn(1, views.images.shape[1], 5, 6, generator=generator)
    bumps = F.interpolate(bumps, views.size, mode="bilinear") * depth_noise
    c2w = views.cameras.c2w.clone()
    shift = torch.randn(c2w[..., :3, 3].shape, generator=generator) * camera_noise
    c2w[..., :3, 3] = (c2w[..., :3, 3] + shift) / UNIT
    pose = encode_pose(Cameras(views.cameras.intrinsics, c2w), *views.size)
    depth = views.depths * bumps.exp() / UNIT
    return BackboneFeatures((), views.size, depth, torch.full_like(depth, 5.0), pose)


def prior_of(views, seen, view_mask=None):
    return build_depth_prior(seen, views.images, views.cameras, NEAR_FAR, view_mask)


def median_error(prior, views):
    truth = F.interpolate(views.depths, prior.depth.shape[-2:], mode="nearest-exact")
    return (prior.depth / truth - 1).median().abs()


@pytest.mark.parametrize("camera_noise", [0.0, 200.0, None])
@pytest.mark.parametrize("depth_noise", [0.0, 0.02])
def test_recovers_the_scale_even_without_any_predicted_camera(views, camera_noise, depth_noise):
    seen = backbone(views, camera_noise or 0.0, depth_noise)
    if camera_noise is None:
        seen = replace(seen, pose_enc=None)
    prior = prior_of(views, seen)
    assert median_error(prior, views) < 0.02
    assert camera_noise is None or prior.reliability > 0.4


def test_cameras_decide_where_nothing_has_texture(views):
    flat = replace(views, images=torch.full_like(views.images, 0.5))
    prior = prior_of(
        flat, replace(backbone(views), depth=torch.full_like(views.depths, 600 / UNIT))
    )
    assert (prior.depth / 600 - 1).abs().max() < 0.1


def test_inconsistent_views_get_little_confidence(views):
    seen = backbone(views)
    noise = torch.rand(views.depths.shape, generator=torch.Generator().manual_seed(0))
    good, bad = (
        prior_of(views, some).depth_and_confidence()[:, :, 1].mean()
        for some in (seen, replace(seen, depth=2 + 4 * noise))
    )
    assert bad < 0.3 * good


@pytest.mark.parametrize("kept", [[0, 2], [1, 2], [0], [0, 1, 2]])
def test_views_that_are_absent_have_no_say_and_one_view_has_no_scale(views, kept):
    seen, view_mask = backbone(views, depth_noise=0.02), torch.zeros(1, 3, dtype=torch.bool)
    view_mask[:, kept] = True
    ours = prior_of(views, seen, view_mask)
    fewer = BackboneFeatures(
        (), views.size, seen.depth[:, kept], seen.depth_conf[:, kept], seen.pose_enc[:, kept]
    )
    theirs = prior_of(views.take(kept), fewer)
    torch.testing.assert_close(ours.depth[:, kept], theirs.depth)
    torch.testing.assert_close(ours.confidence[:, kept], theirs.confidence, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.reliability, theirs.reliability, atol=1e-5, rtol=1e-4)
    assert ours.confidence[~view_mask].abs().sum() == 0
    assert theirs.depth.min() >= 425 and theirs.depth.max() <= 905
    assert (theirs.reliability == 0) == (len(kept) == 1)


def test_cameras_at_one_place_have_no_scale(views):
    c2w = views.cameras.c2w.clone()
    c2w[..., :3, 3] = c2w[:, :1, :3, 3]
    together = Cameras(views.cameras.intrinsics, c2w)
    assert prior_of(replace(views, cameras=together), backbone(views)).reliability < 0.3
    everyone = torch.ones(1, 3, dtype=torch.bool)
    _, quality = center_scale(torch.randn(1, 3, 3), together.centers, everyone)
    assert quality == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0, 1e30])
def test_never_nan_and_always_within_range(views, value):
    seen = backbone(views)
    depth, conf, pose = (x.clone() for x in (seen.depth, seen.depth_conf, seen.pose_enc))
    depth[:, 0], conf[:, 1], pose[:, 2] = value, value, value
    prior = prior_of(views, BackboneFeatures((), seen.network_size, depth, conf, pose))
    # A comparison with what is not a number fails.
    assert ((prior.depth >= 425) & (prior.depth <= 905)).all()
    for part in (prior.confidence, prior.reliability):
        assert ((part >= 0) & (part <= 1)).all()


def test_center_scale_withstands_one_lost_camera():
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(1, 7, 3, generator=generator)
    predicted = given / 2.5 + 1
    predicted[:, 3] += 10
    scale, quality = center_scale(predicted, given, torch.ones(1, 7, dtype=torch.bool))
    assert abs(float(scale) - 2.5) < 0.01 and quality > 0.5


def test_descriptors_do_not_depend_on_exposure():
    grey = torch.rand(1, 2, 8, 9, generator=torch.Generator().manual_seed(0))
    one, other = patch_descriptors(grey), patch_descriptors(0.5 * grey + 0.3)
    assert (one * other).sum(2).mean() > 0.98
    assert patch_descriptors(torch.full((1, 1, 5, 5), 0.7)).abs().max() < 1e-3
