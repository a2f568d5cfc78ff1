from dataclasses import replace

import pytest
import torch

from datasets.views import Views
from models.config import (
    CostVolumeConfig,
    FeaturePyramidConfig,
    ModelConfig,
    RadianceFieldConfig,
    RenderConfig,
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


def some_pixels(count=1):
    return pixel_grid(*SIZE, torch.device("cpu"))[::37].expand(count, -1, -1)


def render(model, scene, cameras, near_far=NEAR_FAR, **more):
    target = model.build_cost_volume(scene, cameras, near_far, SIZE)
    return model.render(scene, target, some_pixels(len(near_far)), **more)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10])
def test_any_number_of_views_renders(tiny_model, make_views, make_cameras, count):
    with torch.no_grad():
        scene = tiny_model.encode(make_views(1, count), NEAR_FAR)
        out = render(tiny_model, scene, make_cameras(1)).fine
    assert out.rgb.isfinite().all() and out.depth.isfinite().all()
    assert (out.rgb >= 0).all() and (out.rgb <= 1 + 1e-5).all()
    assert (out.depth >= 2 - 1e-4).all() and (out.depth <= 6 + 1e-4).all()


@pytest.mark.parametrize("samples", [8, 32])
def test_any_number_of_samples_renders(tiny_model, make_views, make_cameras, samples):
    rendering = replace(tiny_model.config.rendering, N_samples=samples, lindisp=True)
    model = VGGTNeRF(replace(tiny_model.config, rendering=rendering), tiny_model.backbone)
    model.load_state_dict(tiny_model.state_dict())
    with torch.no_grad():
        out = render(model, model.encode(make_views(1, 2), NEAR_FAR), make_cameras(1)).fine
    assert out.weights.shape[-1] == samples and out.rgb.isfinite().all()


def test_a_wrong_prior_rules_out_no_depth(tiny_model, make_views, make_cameras):
    scene = tiny_model.encode(make_views(1, 3), NEAR_FAR)
    prior = DepthPrior(
        torch.full_like(scene.prior.depth, 2.5),
        torch.ones_like(scene.prior.confidence),
        torch.ones(1),
    )
    with torch.no_grad():
        out = render(tiny_model, replace(scene, prior=prior), make_cameras(1))
    edges, settings = out.t_edges, tiny_model.config.rendering
    torch.testing.assert_close(edges[..., 0], torch.zeros(1, 35), atol=1e-5, rtol=0)
    torch.testing.assert_close(edges[..., -1], torch.ones(1, 35), atol=1e-5, rtol=0)
    widest = 1 / (settings.sampling_floor * settings.N_samples)
    assert edges.diff(dim=-1).max() <= widest + 1e-5


def test_a_prior_is_used_only_as_far_as_it_is_reliable(tiny_model, make_views, make_cameras):
    scene = tiny_model.encode(make_views(1, 3), NEAR_FAR)

    def rendered(reliability, depth):
        prior = DepthPrior(
            torch.full_like(scene.prior.depth, depth),
            torch.ones_like(scene.prior.confidence),
            torch.full((1,), reliability),
        )
        with torch.no_grad():
            return render(tiny_model, replace(scene, prior=prior), make_cameras(1)).fine.rgb

    assert torch.equal(rendered(0.0, 2.5), rendered(0.0, 5.0))
    assert not torch.equal(rendered(1.0, 2.5), rendered(1.0, 5.0))


def shuffled(scene, order):
    prior = scene.prior
    return SceneFeatures(
        scene.images[:, order],
        scene.features[:, order],
        scene.coarse_features[:, order],
        scene.cameras[:, order],
        DepthPrior(prior.depth[:, order], prior.confidence[:, order], prior.reliability),
    )


def test_order_of_views_does_not_matter_to_the_field(tiny_model, make_views, make_cameras):
    with torch.no_grad():
        scene = tiny_model.encode(make_views(1, 4), NEAR_FAR)
        one = render(tiny_model, scene, make_cameras(1)).fine
        other = render(tiny_model, shuffled(scene, [2, 0, 3, 1]), make_cameras(1)).fine
    torch.testing.assert_close(one.rgb, other.rgb, atol=2e-5, rtol=0)
    torch.testing.assert_close(one.depth, other.depth, atol=2e-4, rtol=0)


def test_chunk_size_does_not_matter(tiny_model, make_views, make_cameras):
    scene = tiny_model.encode(make_views(1, 3), NEAR_FAR)
    images = [
        tiny_model.render_images(scene, make_cameras(1), NEAR_FAR, SIZE, chunk)
        for chunk in (100_000, 300, 7 * 40 + 1)
    ]
    for other in images[1:]:
        torch.testing.assert_close(images[0].rgb, other.rgb, atol=1e-4, rtol=0)
        torch.testing.assert_close(images[0].depth, other.depth, atol=1e-3, rtol=0)


def test_scenes_of_a_batch_do_not_mix(tiny_model, make_views, make_cameras):
    both, camera = make_views(2, 3), make_cameras(1)
    second = Views(both.images[1:], both.cameras[1:], both.depths[1:], both.masks[1:])
    cameras = Cameras(camera.intrinsics.repeat(2, 1, 1), camera.c2w.repeat(2, 1, 1))
    ranges = NEAR_FAR.repeat(2, 1)
    with torch.no_grad():
        together = render(tiny_model, tiny_model.encode(both, ranges), cameras, ranges).fine
        alone = render(tiny_model, tiny_model.encode(second, NEAR_FAR), camera).fine
    torch.testing.assert_close(together.rgb[1:], alone.rgb, atol=5e-4, rtol=0)


def test_unit_of_length_does_not_matter(tiny_model, make_views, make_cameras):
    views, camera = make_views(1, 3), make_cameras(1)
    scaled = Views(
        views.images, views.cameras.scaled_world(0.005), views.depths * 0.005, views.masks
    )
    with torch.no_grad():
        one = render(tiny_model, tiny_model.encode(views, NEAR_FAR), camera).fine
        small, ranges = camera.scaled_world(0.005), NEAR_FAR * 0.005
        other = render(tiny_model, tiny_model.encode(scaled, ranges), small, ranges).fine
    torch.testing.assert_close(one.rgb, other.rgb, atol=1e-3, rtol=0)
    torch.testing.assert_close(one.depth * 0.005, other.depth, atol=1e-4, rtol=0)


def test_points_that_no_view_sees_are_not_black(tiny_model, make_views, make_cameras):
    camera = make_cameras(1)
    c2w = camera.c2w.clone()
    c2w[:, :3, :3] = torch.diag(torch.tensor([-1.0, 1, -1]))
    away = Cameras(camera.intrinsics, c2w)
    scene = tiny_model.encode(make_views(1, 3), NEAR_FAR)
    target = tiny_model.build_cost_volume(scene, away, NEAR_FAR, SIZE)
    with torch.no_grad():
        out = tiny_model.render(scene, target, some_pixels(), with_coarse=True)
    for composite in (out.fine, out.coarse):
        hue = composite.rgb / composite.opacity[..., None].clamp_min(1e-3)
        assert hue.min() > 0.2 and hue.max() < 0.8
    assert out.fine.opacity.min() > 0.1


@pytest.mark.parametrize("white", [False, True])
def test_what_passes_through_the_scene_shows_the_background(
    tiny_model, make_views, make_cameras, white
):
    settings = replace(tiny_model.config.rendering, white_bkgd=white)
    model = VGGTNeRF(replace(tiny_model.config, rendering=settings), tiny_model.backbone)
    with torch.no_grad():
        model.radiance_field.density.bias.fill_(-1000.0)
        out = model.render_images(
            model.encode(make_views(1, 3), NEAR_FAR), make_cameras(1), NEAR_FAR, SIZE
        )
    assert (out.opacity == 0).all()
    assert (out.rgb == float(white)).all()
    assert (out.depth == 6).all()


@pytest.mark.parametrize("with_backbone", [True, False])
def test_gradients_reach_every_trainable_parameter_and_nothing_else(
    tiny_model, make_views, make_cameras, with_backbone
):
    backbone = tiny_model.backbone if with_backbone else NullBackbone()
    model = VGGTNeRF(tiny_model.config, backbone)
    scene = model.encode(make_views(1, 3), NEAR_FAR)
    rendering = render(model, scene, make_cameras(1), with_coarse=True)
    (rendering.fine.rgb.square().sum() + rendering.coarse.rgb.square().sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    if with_backbone:
        assert not any(p.requires_grad for p in backbone.network.parameters())
    assert not any("backbone" in key for key in model.state_dict())


def test_without_a_backbone_there_is_no_prior(tiny_model, make_views, make_cameras):
    model = VGGTNeRF(tiny_model.config, NullBackbone())
    with torch.no_grad():
        scene = model.encode(make_views(2, 3), NEAR_FAR.repeat(2, 1), refine=False)
    assert (scene.prior.reliability == 0).all() and (scene.prior.confidence == 0).all()
    assert model.backbone.fingerprint == "none"
    assert not any("token" in name for name, _ in model.named_parameters())


def test_sampling_follows_the_generator(tiny_model, make_views, make_cameras):
    scene = tiny_model.encode(make_views(1, 3), NEAR_FAR)
    draws = [
        render(
            tiny_model, scene, make_cameras(1), generator=torch.Generator().manual_seed(seed)
        ).fine.rgb
        for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_every_target_is_rendered_from_its_own_camera(tiny_model, make_views):
    """The same pixels of two targets, together and each alone."""
    targets = make_views(1, 2)
    with torch.no_grad():
        scene = tiny_model.encode(make_views(1, 3, seed=1), NEAR_FAR)
        drawn = draw_target_rays(targets, 6, RayBatchConfig(), torch.Generator().manual_seed(0))
        out = render_targets(tiny_model, scene, targets, NEAR_FAR, drawn)
        for place in range(2):
            volume = tiny_model.build_cost_volume(
                scene, targets.cameras[:, place], NEAR_FAR, targets.size
            )
            alone = tiny_model.render(scene, volume, drawn.pixels[:, place]).fine
            torch.testing.assert_close(out.fine.rgb[:, place], alone.rgb, atol=1e-5, rtol=0)
    assert out.coarse.weights.shape == (1, 2, 6, 12) and out.t_edges.shape == (1, 2, 6, 9)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="N_samples=1"):
        RenderConfig(N_samples=1)
    with pytest.raises(ValueError, match="sampling_floor=0"):
        RenderConfig(sampling_floor=0.0)
    with pytest.raises(ValueError, match="similarity_groups"):
        ModelConfig(radiance_field=RadianceFieldConfig(similarity_groups=5))
    with pytest.raises(ValueError, match="coarse_channels=20 is not a multiple of volume_groups=8"):
        ModelConfig(FeaturePyramidConfig(coarse_channels=20))
    with pytest.raises(ValueError, match="feature_channels=6"):
        FeaturePyramidConfig(feature_channels=6)
    with pytest.raises(ValueError, match="volume_widths"):
        CostVolumeConfig(volume_widths=(16, 20))
