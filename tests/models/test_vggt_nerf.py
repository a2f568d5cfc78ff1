from dataclasses import replace

import pytest
import torch

from datasets.views import Views
from models.projection import SceneFeatures
from models.radiance_field import RadianceFieldConfig
from models.vggt_nerf import ModelConfig, RenderConfig
from utils.cameras import Cameras
from utils.rays import Rays, pixel_grid, pixel_rays

NEAR_FAR = torch.tensor([[2.0, 6.0]])


def target_rays(make_cameras, count=1):
    camera = make_cameras(1)
    pixels = pixel_grid(32, 40, torch.device("cpu"))[::37]
    return pixel_rays(camera, pixels.expand(count, -1, -1))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_any_number_of_views_renders(tiny_model, make_views, make_cameras, count):
    with torch.no_grad():
        scene = tiny_model.encode(make_views(1, count))
        out = tiny_model.render(scene, target_rays(make_cameras), NEAR_FAR).fine
    assert out.rgb.isfinite().all() and out.depth.isfinite().all()
    assert (out.rgb >= 0).all() and (out.rgb <= 1 + 1e-5).all()
    assert (out.depth >= 2 - 1e-4).all() and (out.depth <= 6 + 1e-4).all()


def test_order_of_views_does_not_matter_to_the_field(tiny_model, make_views, make_cameras):
    order = [2, 0, 3, 1]
    with torch.no_grad():
        scene = tiny_model.encode(make_views(1, 4))
        shuffled = SceneFeatures(
            scene.images[:, order], scene.features[:, order], scene.cameras[:, order]
        )
        rays = target_rays(make_cameras)
        one = tiny_model.render(scene, rays, NEAR_FAR).fine
        other = tiny_model.render(shuffled, rays, NEAR_FAR).fine
    torch.testing.assert_close(one.rgb, other.rgb, atol=2e-5, rtol=0)
    torch.testing.assert_close(one.depth, other.depth, atol=2e-4, rtol=0)


def test_chunk_size_does_not_matter(tiny_model, make_views, make_cameras):
    scene = tiny_model.encode(make_views(1, 3))
    images = [
        tiny_model.render_images(scene, make_cameras(1), NEAR_FAR, (32, 40), chunk)
        for chunk in (100_000, 300, 7 * 40 + 1)
    ]
    for other in images[1:]:
        torch.testing.assert_close(images[0].rgb, other.rgb, atol=1e-4, rtol=0)
        torch.testing.assert_close(images[0].depth, other.depth, atol=1e-3, rtol=0)


def test_scenes_of_a_batch_do_not_mix(tiny_model, make_views, make_cameras):
    both = make_views(2, 3)
    second = Views(both.images[1:], both.cameras[1:], both.depths[1:], both.masks[1:])
    rays = target_rays(make_cameras, 2)
    with torch.no_grad():
        together = tiny_model.render(tiny_model.encode(both), rays, NEAR_FAR.repeat(2, 1)).fine
        second_rays = Rays(rays.origins[1:], rays.directions[1:])
        alone = tiny_model.render(tiny_model.encode(second), second_rays, NEAR_FAR).fine
    torch.testing.assert_close(together.rgb[1:], alone.rgb, atol=1e-5, rtol=0)


def test_unit_of_length_does_not_matter(tiny_model, make_views, make_cameras):
    views, rays = make_views(1, 3), target_rays(make_cameras)
    scaled = Views(
        views.images, views.cameras.scaled_world(0.005), views.depths * 0.005, views.masks
    )
    with torch.no_grad():
        one = tiny_model.render(tiny_model.encode(views), rays, NEAR_FAR).fine
        small_rays = Rays(rays.origins * 0.005, rays.directions)
        other = tiny_model.render(tiny_model.encode(scaled), small_rays, NEAR_FAR * 0.005).fine
    torch.testing.assert_close(one.rgb, other.rgb, atol=1e-3, rtol=0)
    torch.testing.assert_close(one.depth * 0.005, other.depth, atol=1e-4, rtol=0)


@pytest.mark.parametrize("white", [False, True])
def test_rays_that_no_view_sees_show_the_background(tiny_model, make_views, make_cameras, white):
    camera = make_cameras(1)
    c2w = camera.c2w.clone()
    c2w[:, :3, :3] = torch.diag(torch.tensor([-1.0, 1, -1]))
    away = Cameras(camera.intrinsics, c2w)
    settings = replace(tiny_model.config.rendering, white_bkgd=white)
    config = tiny_model.config
    tiny_model.config = replace(config, rendering=settings)
    try:
        scene = tiny_model.encode(make_views(1, 3))
        out = tiny_model.render_images(scene, away, NEAR_FAR, (32, 40))
    finally:
        tiny_model.config = config
    assert (out.opacity == 0).all()
    assert (out.rgb == float(white)).all()
    assert (out.depth == 6).all()


def test_gradients_reach_every_trainable_parameter_and_nothing_else(
    tiny_model, make_views, make_cameras
):
    tiny_model.zero_grad()
    scene = tiny_model.encode(make_views(1, 3))
    rendering = tiny_model.render(scene, target_rays(make_cameras), NEAR_FAR)
    (rendering.fine.rgb.sum() + rendering.coarse.rgb.sum()).backward()
    for name, parameter in tiny_model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert not any(p.requires_grad for p in tiny_model.backbone.network.parameters())
    assert not any("backbone" in key for key in tiny_model.state_dict())


def test_stratified_rendering_follows_the_generator(tiny_model, make_views, make_cameras):
    scene = tiny_model.encode(make_views(1, 3))
    rays = target_rays(make_cameras)
    draws = [
        tiny_model.render(scene, rays, NEAR_FAR, torch.Generator().manual_seed(seed)).fine.rgb
        for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="N_samples=1"):
        RenderConfig(N_samples=1)
    with pytest.raises(ValueError, match="similarity_groups"):
        ModelConfig(radiance_field=RadianceFieldConfig(similarity_groups=5))
