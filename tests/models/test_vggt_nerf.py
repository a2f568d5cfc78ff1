from dataclasses import replace

import pytest
import torch

from datasets.views import Views
from models.bundles import composite_bins, whole_window
from models.config import (
    CostVolumeConfig,
    FeaturePyramidConfig,
    ModelConfig,
    RadianceFieldConfig,
)
from models.depth_prior import DepthPrior
from models.projection import SceneFeatures
from models.vggt.backbone import NullBackbone
from models.vggt_nerf import VGGTNeRF
from utils.cameras import Cameras

NEAR_FAR = torch.tensor([[2.0, 6.0]])
SIZE = (32, 40)


def render(model, scene, cameras, near_far=NEAR_FAR, **more):
    target = model.build_cost_volume(scene, cameras, near_far, SIZE)
    window = whole_window(SIZE, 2, len(near_far), near_far.device)
    return model.render_window(scene, target, window, **more)


def with_rendering(model, **settings):
    rendering = replace(model.config.rendering, **settings)
    other = VGGTNeRF(replace(model.config, rendering=rendering), model.backbone)
    other.load_state_dict(model.state_dict())
    return other


def with_prior(scene, depth, reliability=1.0):
    prior = scene.prior
    depth, confidence = torch.full_like(prior.depth, depth), torch.ones_like(prior.confidence)
    return replace(scene, prior=DepthPrior(depth, confidence, torch.full((1,), reliability)))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10])
@torch.no_grad()
def test_any_number_of_views_renders(tiny_model, make_views, camera, count):
    out = render(tiny_model, tiny_model.encode(make_views(1, count), NEAR_FAR), camera)
    out = out.bundles.composite
    # A comparison with what is not a number fails.
    assert ((out.rgb >= 0) & (out.rgb <= 1 + 1e-5)).all()
    assert ((out.depth >= 2 - 1e-4) & (out.depth <= 6 + 1e-4)).all()


@pytest.mark.parametrize("samples", [2, 16])
@torch.no_grad()
def test_any_number_of_samples_renders(tiny_model, make_views, camera, samples):
    model = with_rendering(tiny_model, N_samples=samples, lindisp=True)
    out = render(model, model.encode(make_views(1, 2), NEAR_FAR), camera)
    assert out.bundles.t.shape[-1] == samples and out.rgb.isfinite().all()


@torch.no_grad()
def test_a_wrong_prior_rules_out_no_depth(tiny_model, encoded, camera):
    model = with_rendering(tiny_model, sampling_floor=0.5)
    edges = render(model, with_prior(encoded, 2.5), camera).levels[-1].t_edges
    torch.testing.assert_close(edges[..., 0], torch.full((1, 320), 2.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(edges[..., -1], torch.full((1, 320), 6.0), atol=1e-5, rtol=0)
    widest = 4 / (0.5 * model.config.volume.fine_planes)
    assert edges.diff(dim=-1).max() <= widest + 1e-5


@pytest.mark.parametrize("reliability", [0.0, 1.0])
@torch.no_grad()
def test_a_prior_is_used_only_as_far_as_it_is_reliable(tiny_model, encoded, camera, reliability):
    one, other = (
        render(tiny_model, with_prior(encoded, depth, reliability), camera).rgb
        for depth in (2.5, 5.0)
    )
    assert torch.equal(one, other) == (reliability == 0)


@torch.no_grad()
def test_order_of_views_does_not_matter(tiny_model, make_views, camera):
    scene, order = tiny_model.encode(make_views(1, 4), NEAR_FAR), [2, 0, 3, 1]
    prior = scene.prior
    shuffled = SceneFeatures(
        scene.images[:, order],
        scene.features[:, order],
        scene.coarse_features[:, order],
        scene.cameras[:, order],
        DepthPrior(prior.depth[:, order], prior.confidence[:, order], prior.reliability),
    )
    both = scene, shuffled
    one, other = (tiny_model.build_cost_volume(some, camera, NEAR_FAR, SIZE) for some in both)
    torch.testing.assert_close(one.weights, other.weights, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one.features, other.features, atol=1e-4, rtol=1e-3)
    one, other = (render(tiny_model, some, camera).bundles.composite for some in both)
    torch.testing.assert_close(one.rgb, other.rgb, atol=2e-5, rtol=0)
    torch.testing.assert_close(one.depth, other.depth, atol=2e-4, rtol=0)


@torch.no_grad()
def test_chunk_size_does_not_matter(tiny_model, encoded, camera):
    whole, *parts = (
        tiny_model.render_images(encoded, camera, NEAR_FAR, SIZE, chunk)
        for chunk in (100_000, 300, 7 * 40 + 1)
    )
    for part in parts:
        torch.testing.assert_close(part.rgb, whole.rgb, atol=1e-4, rtol=0)
        torch.testing.assert_close(part.depth, whole.depth, atol=1e-3, rtol=0)


@torch.no_grad()
def test_scenes_of_a_batch_do_not_mix(tiny_model, make_views, camera):
    both, ranges = make_views(2, 3), NEAR_FAR.repeat(2, 1)
    second = Views(both.images[1:], both.cameras[1:], both.depths[1:], both.masks[1:])
    cameras = Cameras(camera.intrinsics.repeat(2, 1, 1), camera.c2w.repeat(2, 1, 1))
    together = render(tiny_model, tiny_model.encode(both, ranges), cameras, ranges)
    alone = render(tiny_model, tiny_model.encode(second, NEAR_FAR), camera)
    torch.testing.assert_close(together.rgb[1:], alone.rgb, atol=5e-4, rtol=0)


@pytest.mark.parametrize("unit", [0.005, 250.0])
@torch.no_grad()
def test_unit_of_length_does_not_matter(tiny_model, make_views, encoded, camera, unit):
    views, small, ranges = make_views(1, 3), camera.scaled_world(unit), NEAR_FAR * unit
    scaled = Views(views.images, views.cameras.scaled_world(unit), views.depths * unit, views.masks)
    large = tiny_model.encode(scaled, ranges)
    volume = tiny_model.build_cost_volume(encoded, camera, NEAR_FAR, SIZE)
    again = tiny_model.build_cost_volume(large, small, ranges, SIZE)
    torch.testing.assert_close(volume.weights, again.weights, atol=1e-4, rtol=1e-3)
    one = render(tiny_model, encoded, camera).bundles.composite
    other = render(tiny_model, large, small, ranges).bundles.composite
    torch.testing.assert_close(one.rgb, other.rgb, atol=1e-3, rtol=0)
    torch.testing.assert_close(one.depth, other.depth / unit, atol=2e-2, rtol=0)


@torch.no_grad()
def test_points_that_no_view_sees_are_not_black(tiny_model, encoded, camera):
    camera.c2w[:, :3, :3] = torch.diag(torch.tensor([-1.0, 1, -1]))
    out = render(tiny_model, encoded, camera)
    coarse = [
        composite_bins(encoded, out.rays, level.t, level.weights, NEAR_FAR[:, 1:])
        for level in out.levels
    ]
    for composite in (out.bundles.composite, *coarse):
        hue = composite.rgb / composite.opacity[..., None].clamp_min(1e-3)
        assert hue.min() > 0.2 and hue.max() < 0.8
    assert out.bundles.composite.opacity.min() > 0.1


@pytest.mark.parametrize("white", [False, True])
@torch.no_grad()
def test_what_passes_through_the_scene_shows_the_background(tiny_model, encoded, camera, white):
    model = with_rendering(tiny_model, white_bkgd=white)
    model.radiance_field.density.bias.fill_(-1000.0)
    out = model.render_images(encoded, camera, NEAR_FAR, SIZE)
    assert (out.opacity == 0).all()
    assert (out.rgb == float(white)).all()
    assert (out.depth == 6).all()


@pytest.mark.parametrize("with_backbone", [True, False])
def test_gradients_reach_every_trainable_parameter_and_nothing_else(
    tiny_model, make_views, camera, with_backbone
):
    backbone = tiny_model.backbone if with_backbone else NullBackbone()
    model = VGGTNeRF(tiny_model.config, backbone)
    # It is zero at first, and keeps gradients from the rest of the decoder.
    torch.nn.init.normal_(model.decoder.outward.weight)
    scene = model.encode(make_views(1, 3), NEAR_FAR)
    rendering = render(model, scene, camera)
    judged = sum(level.weights.square().sum() for level in rendering.levels)
    (rendering.rgb.square().sum() + judged).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    if with_backbone:
        assert not any(p.requires_grad for p in backbone.network.parameters())
    assert not any("backbone" in key for key in model.state_dict())


@torch.no_grad()
def test_without_a_backbone_there_is_no_prior(tiny_model, make_views):
    model = VGGTNeRF(tiny_model.config, NullBackbone())
    scene = model.encode(make_views(2, 3), NEAR_FAR.repeat(2, 1), refine=False)
    assert (scene.prior.reliability == 0).all() and (scene.prior.confidence == 0).all()
    assert not any("token" in name for name, _ in model.named_parameters())


@torch.no_grad()
def test_sampling_follows_the_generator(tiny_model, encoded, camera):
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    draws = [render(tiny_model, encoded, camera, generator=g).rgb for g in generators]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


MODEL = ModelConfig()


@pytest.mark.parametrize(
    ("config", "change", "words"),
    [
        (MODEL.rendering, {"N_samples": 1}, "N_samples=1"),
        (MODEL.rendering, {"sampling_floor": 0.0}, "sampling_floor=0"),
        (MODEL, {"radiance_field": RadianceFieldConfig(similarity_groups=5)}, "similarity_groups"),
        (
            MODEL,
            {"pyramid": FeaturePyramidConfig(coarse_channels=20)},
            "coarse_channels=20 is not a multiple of volume_groups=8",
        ),
        (FeaturePyramidConfig(), {"feature_channels": 6}, "feature_channels=6"),
        (CostVolumeConfig(), {"volume_widths": (16, 20)}, "volume_widths"),
        (CostVolumeConfig(), {"fine_planes": 1}, "fine_planes=1"),
        (MODEL.decoder, {"decoder_widths": ()}, "decoder_widths"),
    ],
)
def test_impossible_settings_are_refused(config, change, words):
    with pytest.raises(ValueError, match=words):
        replace(config, **change)
