from dataclasses import replace

import pytest
import torch

from datasets.views import Views
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
from training.config import RayBatchConfig
from training.ray_batches import draw_target_rays, render_targets
from utils.cameras import Cameras, pixel_grid

NEAR_FAR = torch.tensor([[2.0, 6.0]])
SIZE = (32, 40)
PIXELS = pixel_grid(*SIZE, torch.device("cpu"))[::37]


def render(model, scene, cameras, near_far=NEAR_FAR, **more):
    target = model.build_cost_volume(scene, cameras, near_far, SIZE)
    return model.render(scene, target, PIXELS.expand(len(near_far), -1, -1), **more)


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
    out = render(tiny_model, tiny_model.encode(make_views(1, count), NEAR_FAR), camera).fine
    # A comparison with what is not a number fails.
    assert ((out.rgb >= 0) & (out.rgb <= 1 + 1e-5)).all()
    assert ((out.depth >= 2 - 1e-4) & (out.depth <= 6 + 1e-4)).all()


@pytest.mark.parametrize("samples", [8, 32])
@torch.no_grad()
def test_any_number_of_samples_renders(tiny_model, make_views, camera, samples):
    model = with_rendering(tiny_model, N_samples=samples, lindisp=True)
    out = render(model, model.encode(make_views(1, 2), NEAR_FAR), camera).fine
    assert out.weights.shape[-1] == samples and out.rgb.isfinite().all()


@torch.no_grad()
def test_a_wrong_prior_rules_out_no_depth(tiny_model, encoded, camera):
    edges = render(tiny_model, with_prior(encoded, 2.5), camera).t_edges
    torch.testing.assert_close(edges[..., 0], torch.zeros(1, 35), atol=1e-5, rtol=0)
    torch.testing.assert_close(edges[..., -1], torch.ones(1, 35), atol=1e-5, rtol=0)
    settings = tiny_model.config.rendering
    widest = 1 / (settings.sampling_floor * settings.N_samples)
    assert edges.diff(dim=-1).max() <= widest + 1e-5


@pytest.mark.parametrize("reliability", [0.0, 1.0])
@torch.no_grad()
def test_a_prior_is_used_only_as_far_as_it_is_reliable(tiny_model, encoded, camera, reliability):
    one, other = (
        render(tiny_model, with_prior(encoded, depth, reliability), camera).fine.rgb
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
    one, other = (render(tiny_model, some, camera).fine for some in both)
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
    together = render(tiny_model, tiny_model.encode(both, ranges), cameras, ranges).fine
    alone = render(tiny_model, tiny_model.encode(second, NEAR_FAR), camera).fine
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
    one = render(tiny_model, encoded, camera).fine
    other = render(tiny_model, large, small, ranges).fine
    torch.testing.assert_close(one.rgb, other.rgb, atol=1e-3, rtol=0)
    torch.testing.assert_close(one.depth, other.depth / unit, atol=2e-2, rtol=0)


@torch.no_grad()
def test_points_that_no_view_sees_are_not_black(tiny_model, encoded, camera):
    camera.c2w[:, :3, :3] = torch.diag(torch.tensor([-1.0, 1, -1]))
    out = render(tiny_model, encoded, camera, with_coarse=True)
    for composite in (out.fine, out.coarse):
        hue = composite.rgb / composite.opacity[..., None].clamp_min(1e-3)
        assert hue.min() > 0.2 and hue.max() < 0.8
    assert out.fine.opacity.min() > 0.1


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
    scene = model.encode(make_views(1, 3), NEAR_FAR)
    rendering = render(model, scene, camera, with_coarse=True)
    (rendering.fine.rgb.square().sum() + rendering.coarse.rgb.square().sum()).backward()
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
    draws = [render(tiny_model, encoded, camera, generator=g).fine.rgb for g in generators]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@torch.no_grad()
def test_every_target_is_rendered_from_its_own_camera(tiny_model, encoded, make_views):
    """The same pixels of two targets, together and each alone."""
    targets = make_views(1, 2)
    drawn = draw_target_rays(targets, 6, RayBatchConfig(), torch.Generator().manual_seed(0))
    out = render_targets(tiny_model, encoded, targets, NEAR_FAR, drawn)
    for place in range(2):
        camera = targets.cameras[:, place]
        volume = tiny_model.build_cost_volume(encoded, camera, NEAR_FAR, targets.size)
        alone = tiny_model.render(encoded, volume, drawn.pixels[:, place]).fine
        torch.testing.assert_close(out.fine.rgb[:, place], alone.rgb, atol=1e-5, rtol=0)
    assert out.coarse.weights.shape == (1, 2, 6, 12) and out.t_edges.shape == (1, 2, 6, 9)


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
    ],
)
def test_impossible_settings_are_refused(config, change, words):
    with pytest.raises(ValueError, match=words):
        replace(config, **change)
