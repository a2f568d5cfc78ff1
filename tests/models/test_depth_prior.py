"""The scale of the backbone's depth, on a scene whose depth and cameras are known exactly."""

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
ALL = torch.ones(1, 3, dtype=torch.bool)


@pytest.fixture
def views(tiny_scene):
    chosen = [0, 2, 5]
    intrinsics = torch.tensor(tiny_scene.file_intrinsics).float()
    intrinsics[:2] *= 4
    intrinsics[:2, 2] += 0.25
    c2w = torch.tensor(tiny_scene.w2c[chosen]).inverse().float()
    images = torch.tensor(tiny_scene.images[chosen]).permute(0, 3, 1, 2).float() / 255
    depths = torch.tensor(tiny_scene.depths[chosen])
    return Views(
        images[None],
        Cameras(intrinsics.expand(1, 3, 3, 3), c2w[None]),
        depths[None],
        torch.ones_like(depths[None], dtype=torch.bool),
    )


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


def relative_errors(prior, views):
    truth = F.interpolate(views.depths, prior.depth.shape[-2:], mode="nearest-exact")
    return (prior.depth / truth - 1).flatten()


@pytest.mark.parametrize(
    ("camera_noise", "depth_noise"), [(0.0, 0.0), (200.0, 0.0), (0.0, 0.02), (200.0, 0.02)]
)
def test_recovers_the_scale(views, camera_noise, depth_noise):
    seen = backbone(views, camera_noise, depth_noise)
    prior = build_depth_prior(seen, views.images, views.cameras, NEAR_FAR)
    assert relative_errors(prior, views).median().abs() < 0.02
    assert prior.reliability > 0.4


def test_works_without_any_predicted_camera(views):
    seen = backbone(views)
    blind = BackboneFeatures((), seen.network_size, seen.depth, seen.depth_conf)
    prior = build_depth_prior(blind, views.images, views.cameras, NEAR_FAR)
    assert relative_errors(prior, views).median().abs() < 0.02


def test_cameras_decide_where_nothing_has_texture(views):
    flat = torch.full_like(views.images, 0.5)
    depth = torch.full_like(views.depths, 600 / UNIT)
    seen = backbone(views)
    plain = BackboneFeatures((), seen.network_size, depth, seen.depth_conf, seen.pose_enc)
    prior = build_depth_prior(plain, flat, views.cameras, NEAR_FAR)
    assert (prior.depth / 600 - 1).abs().max() < 0.1


def test_inconsistent_views_get_little_confidence(views):
    generator = torch.Generator().manual_seed(0)
    seen = backbone(views)
    noise = torch.rand(views.depths.shape, generator=generator)
    wrong = BackboneFeatures((), seen.network_size, 2 + 4 * noise, seen.depth_conf, seen.pose_enc)
    good = build_depth_prior(seen, views.images, views.cameras, NEAR_FAR)
    bad = build_depth_prior(wrong, views.images, views.cameras, NEAR_FAR)
    confidence = [prior.depth_and_confidence()[:, :, 1].mean() for prior in (good, bad)]
    assert confidence[1] < 0.3 * confidence[0]


def test_one_view_has_no_scale(views):
    first = Views(
        views.images[:, :1], views.cameras[:, :1], views.depths[:, :1], views.masks[:, :1]
    )
    prior = build_depth_prior(backbone(first), first.images, first.cameras, NEAR_FAR)
    assert prior.reliability == 0
    assert prior.depth.min() >= 425 and prior.depth.max() <= 905


@pytest.mark.parametrize("kept", [[0, 2], [1, 2], [0], [0, 1, 2]])
def test_views_that_are_absent_have_no_say(views, kept):
    seen, view_mask = backbone(views, depth_noise=0.02), torch.zeros(1, 3, dtype=torch.bool)
    view_mask[:, kept] = True
    ours = build_depth_prior(seen, views.images, views.cameras, NEAR_FAR, view_mask)
    some = views.take(kept)
    fewer = BackboneFeatures(
        (), views.size, seen.depth[:, kept], seen.depth_conf[:, kept], seen.pose_enc[:, kept]
    )
    theirs = build_depth_prior(fewer, some.images, some.cameras, NEAR_FAR)
    torch.testing.assert_close(ours.depth[:, kept], theirs.depth)
    torch.testing.assert_close(ours.confidence[:, kept], theirs.confidence, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.reliability, theirs.reliability, atol=1e-5, rtol=1e-4)
    assert ours.confidence[~view_mask].abs().sum() == 0


def test_cameras_at_one_place_have_no_scale(views):
    c2w = views.cameras.c2w.clone()
    c2w[..., :3, 3] = c2w[:, :1, :3, 3]
    together = Cameras(views.cameras.intrinsics, c2w)
    prior = build_depth_prior(backbone(views), views.images, together, NEAR_FAR)
    assert prior.reliability < 0.3
    _, quality = center_scale(torch.randn(1, 3, 3), together.centers, ALL)
    assert quality == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0, 1e30])
def test_never_nan_and_always_within_range(views, value):
    seen = backbone(views)
    depth, conf, pose = (x.clone() for x in (seen.depth, seen.depth_conf, seen.pose_enc))
    depth[:, 0], conf[:, 1], pose[:, 2] = value, value, value
    prior = build_depth_prior(
        BackboneFeatures((), seen.network_size, depth, conf, pose),
        views.images,
        views.cameras,
        NEAR_FAR,
    )
    for part in (prior.depth, prior.confidence, prior.reliability):
        assert part.isfinite().all()
    assert prior.depth.min() >= 425 and prior.depth.max() <= 905
    for part in (prior.confidence, prior.reliability):
        assert part.min() >= 0 and part.max() <= 1


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
