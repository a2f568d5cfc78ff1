"""Colours of what no source view sees."""

from dataclasses import replace

import pytest
import torch

from models.bundles import whole_window
from models.unseen import decoder_input, pull_push

NEAR_FAR = torch.tensor([[2.0, 6.0]])
SIZE = (32, 40)
RED, GREEN, BLUE = torch.eye(3)[:, None]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 5), (64, 48)])
def test_without_any_value_a_map_is_the_default(size):
    values = torch.rand(1, 3, *size)
    filled = pull_push(values, torch.zeros(1, 1, *size), BLUE)
    torch.testing.assert_close(filled, BLUE[:, :, None, None].expand(1, 3, *size))


@pytest.mark.parametrize("size", [(1, 9), (7, 5), (64, 48)])
def test_one_colour_everywhere_stays_that_colour(size):
    weights = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0))
    filled = pull_push(RED[:, :, None, None].expand(1, 3, *size), weights, RED)
    torch.testing.assert_close(filled, RED[:, :, None, None].expand(1, 3, *size))


def test_unknown_values_are_those_of_their_surroundings():
    values, weights = torch.zeros(1, 3, 32, 64), torch.zeros(1, 1, 32, 64)
    values[:, 0, :, :16], weights[..., :16] = 1.0, 1.0
    values[:, 1, :, -16:], weights[..., -16:] = 1.0, 1.0
    filled = pull_push(values, weights, BLUE)[0]
    red, green, blue = filled[:, 16, 18]
    assert red > 0.75 and green < 0.2 and blue < 0.1
    red, green, blue = filled[:, 16, 45]
    assert red < 0.2 and green > 0.75 and blue < 0.1
    middle = filled[:, 16, 31:33].mean(-1)
    torch.testing.assert_close(middle[0], middle[1])
    assert filled.sum(0).allclose(torch.ones(()))


@torch.no_grad()
def test_where_no_source_looks_an_image_has_the_average_colour_of_the_sources(
    tiny_model, make_views, camera
):
    views = make_views(1, 3)
    images = views.images * torch.tensor([0.2, 0.5, 0.9])[:, None, None]
    mask = torch.tensor([[True, True, False]])
    scene = tiny_model.encode(replace(views, images=images), NEAR_FAR, mask)
    away = replace(camera, c2w=camera.c2w * torch.tensor([-1.0, 1, -1, 1]))
    shown = tiny_model.render_images(scene, away, NEAR_FAR, SIZE).rgb
    average = images[:, :2].mean((1, 3, 4))[..., None, None]
    torch.testing.assert_close(shown, average.expand_as(shown), atol=2e-2, rtol=0)


@torch.no_grad()
def test_a_decoder_begins_with_the_composited_colours_where_sources_see(
    tiny_model, encoded, camera
):
    for parameter in tiny_model.decoder.outward.parameters():
        assert not parameter.any()
    volume = tiny_model.build_cost_volume(encoded, camera, NEAR_FAR, SIZE)
    window = whole_window(SIZE, 2, 1, encoded.images.device)
    out = tiny_model.render_window(encoded, volume, window)
    seen = out.bundles.visibility[0] >= 1 / encoded.images.shape[1]
    colors = window.to_bundles(out.rgb)[0]
    assert seen.any() and torch.equal(colors[seen], out.bundles.composite.rgb[0, seen])


@torch.no_grad()
def test_the_decoder_reads_the_guess_of_each_scene(tiny_model, make_views, make_cameras):
    views, near_far = make_views(2, 3), NEAR_FAR.repeat(2, 1)
    tints = torch.tensor([[1.0, 0.2, 0.2], [0.2, 0.2, 1.0]])[:, None, :, None, None]
    scene = tiny_model.encode(replace(views, images=views.images * tints), near_far)
    camera = make_cameras(2)
    away = replace(camera, c2w=camera.c2w * torch.tensor([-1.0, 1, -1, 1]))
    volume = tiny_model.build_cost_volume(scene, away, near_far, SIZE)
    window = whole_window(SIZE, 2, 2, near_far.device)
    bundles = tiny_model.render_window(scene, volume, window).bundles
    maps = decoder_input(scene, bundles, window, volume.planes).maps
    average = scene.average_color()[..., None, None]
    torch.testing.assert_close(maps[:, -3:], average.expand_as(maps[:, -3:]), atol=2e-2, rtol=0)
    assert maps.shape[1] == tiny_model.decoder.inward.in_channels
