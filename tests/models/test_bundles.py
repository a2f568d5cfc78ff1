"""Bundles of pixels, the second level of the volume, the decoder."""

from dataclasses import replace

import pytest
import torch

from models.bundles import BundleRays, Window, render_bundles, whole_window
from models.ray_sampling import DepthPlanes, RayBins, bin_positions, importance_bins
from utils.cameras import Cameras

NEAR_FAR = torch.tensor([[2.0, 6.0]])
SIZE = (32, 40)


@pytest.fixture
def scene(tiny_model, make_views):
    with torch.no_grad():
        return tiny_model.encode(make_views(1, 3, SIZE), NEAR_FAR)


def render(model, scene, camera, window, **more):
    volume = model.build_cost_volume(scene, camera, NEAR_FAR, SIZE)
    return model.render_window(scene, volume, window, **more)


@torch.no_grad()
@pytest.mark.parametrize("size", [(31, 39), (9, 7), (1, 1)])
def test_images_of_any_size(tiny_model, scene, camera, size):
    out = tiny_model.render_images(scene, camera, NEAR_FAR, size)
    assert out.rgb.shape[-2:] == out.depth.shape[-2:] == out.opacity.shape[-2:] == size
    assert out.rgb.isfinite().all() and (out.depth >= 2 - 1e-4).all() and (out.depth <= 6).all()


@torch.no_grad()
def test_a_window_shows_what_the_whole_image_shows_there(tiny_model, scene, camera):
    """But for its margin, which sees less of its surroundings."""
    whole = render(tiny_model, scene, camera, whole_window(SIZE, 2, 1, scene.images.device))
    part = render(tiny_model, scene, camera, Window(torch.tensor([[8, 0]]), (16, 16), 2))
    inner, same = part.rgb[..., 14:18, 14:18], whole.rgb[..., 14:18, 22:26]
    torch.testing.assert_close(inner, same, atol=1e-3, rtol=0)


@torch.no_grad()
def test_every_pixel_of_a_bundle_has_its_own_colour(tiny_model, scene):
    """From a source's own camera, with all weight at one depth, colours are the image's."""
    planes, window = DepthPlanes(NEAR_FAR, 12), whole_window(SIZE, 2, 1, scene.images.device)
    first = replace(
        scene,
        images=scene.images[:, :1],
        features=scene.features[:, :1],
        coarse_features=scene.coarse_features[:, :1],
        cameras=scene.cameras[:, :1],
        prior=replace(
            scene.prior, depth=scene.prior.depth[:, :1], confidence=scene.prior.confidence[:, :1]
        ),
    )
    rays = BundleRays.of_window(Cameras(*(x[:, 0] for x in vars(first.cameras).values())), window)
    count = window.shape[0] * window.shape[1]
    edges = torch.linspace(2, 6, 9).expand(1, count, 9)
    weights = torch.full((1, count, 8), 1 / 8)
    bins = RayBins(
        edges, (edges[..., 1:] + edges[..., :-1]) / 2, weights, torch.zeros(1, count, 8, 4)
    )
    seen = []
    hook = tiny_model.radiance_field.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    render_bundles(
        tiny_model.radiance_field, tiny_model.config.rendering, first, planes, rays, bins
    )
    hook.remove()
    image = window.to_image(seen[0].pixel_colors[:, 0, :, 0])
    torch.testing.assert_close(image, first.images[:, 0], atol=2e-5, rtol=0)


def test_bins_have_their_place_at_half_of_their_mass():
    edges = torch.linspace(0, 1, 11).expand(1, 1, 11)
    weights = torch.zeros(1, 1, 10)
    weights[..., 4] = 1.0
    found, t = importance_bins(edges, weights, 3, floor=0.1, spread=False)
    assert (t > 0.4).all() and (t < 0.5).all()
    assert (t >= found[..., :-1]).all() and (t <= found[..., 1:]).all()
    positions = bin_positions(found, t, DepthPlanes(torch.tensor([[0.0, 1.0]]), 10))
    torch.testing.assert_close(positions[..., 0], t)
    assert positions[..., 1].argmin() == 1


def test_features_of_bins_are_interpolated():
    t = torch.tensor([[[1.0, 2.0, 4.0]]])
    bins = RayBins(torch.tensor([[[0.0, 1.5, 3.0, 5.0]]]), t, torch.ones(1, 1, 3) / 3, t[..., None])
    asked = torch.tensor([[[0.0, 1.5, 3.0, 9.0]]])
    torch.testing.assert_close(bins.read_features(asked)[..., 0], asked.clamp(1, 4))


@torch.no_grad()
def test_sources_are_judged_by_the_second_level(tiny_model, scene):
    assert scene.prior.depth.shape[-2:] == (8, 10)
    volume = tiny_model.build_cost_volume(scene, scene.cameras[:, 0], NEAR_FAR, SIZE)
    window = whole_window(SIZE, 4, 1, scene.images.device)
    depth, mass = tiny_model.find_bins(scene, volume, window)[-1].expected_surface()
    found = tiny_model.find_surface(scene, scene.cameras[:, 0], NEAR_FAR, SIZE)
    torch.testing.assert_close(found[0].flatten(1), depth)
    torch.testing.assert_close(found[1].flatten(1), mass)


def test_the_surface_is_around_the_likeliest_bin():
    t = torch.tensor([[[1.0, 2.0, 2.5, 6.0]]])
    edges = torch.tensor([[[0.5, 1.5, 2.2, 4.0, 7.0]]])
    weights = torch.tensor([[[0.0, 0.4, 0.2, 0.3]]])
    depth, mass = RayBins(edges, t, weights, t[..., None]).expected_surface()
    torch.testing.assert_close(mass, torch.tensor([[0.6]]))
    torch.testing.assert_close(depth, torch.tensor([[(0.4 * 2 + 0.2 * 2.5) / 0.6]]))


@torch.no_grad()
def test_colours_stay_in_range_whatever_the_decoder_adds(tiny_model, scene, camera):
    bias = tiny_model.decoder.outward.bias
    try:
        for value, extreme in ((9.0, 1.0), (-9.0, 0.0)):
            bias.fill_(value)
            assert (tiny_model.render_images(scene, camera, NEAR_FAR, SIZE).rgb == extreme).all()
    finally:
        bias.zero_()
