"""Windows of the targets, and their losses."""

import math
from dataclasses import replace

import pytest
import torch
from model_inputs import random_views

from models.bundles import Bundles, Window, WindowRendering
from models.ray_sampling import RayBins
from models.volume_rendering import Composite
from training.config import LossConfig
from training.losses import (
    ERROR_SCALE,
    bin_entropy,
    level_guidance,
    relative_error,
    source_entropy,
    window_losses,
)
from training.ray_batches import WindowTruth, draw_window, read_window
from utils.cameras import pixel_rays

NEAR_FAR = torch.tensor([[2.0, 6.0]])
SIZE = (32, 40)


@pytest.fixture
def encoded(tiny_model):
    with torch.no_grad():
        return tiny_model.encode(random_views(1, 3), NEAR_FAR)


def bins(t, weights, edges):
    t, weights, edges = (torch.tensor([[x]]) for x in (t, weights, edges))
    return RayBins(edges, t, weights, t[..., None])


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("pixels", "shape"), [(256, (8, 8)), (4000, (16, 20)), (600, (12, 12)), (3, (1, 1))]
)
def test_windows_are_as_square_as_images_permit(pixels, shape):
    targets = random_views(3, 1, SIZE)[:, 0]
    seen = set()
    for seed in range(20):
        window, truth = draw_window(targets, pixels, 2, torch.Generator().manual_seed(seed))
        assert window.shape == shape
        low, high = window.corners, window.corners + torch.tensor(window.size).flip(0)
        assert (low >= 0).all() and (high <= torch.tensor([40, 32])).all()
        (x, y), (height, width) = low[1].tolist(), window.size
        assert torch.equal(truth.rgb[1], targets.images[1, :, y : y + height, x : x + width])
        seen.add((x, y))
    assert len(seen) > 5 or shape == (16, 20)


def test_a_bundle_has_a_depth_where_all_its_pixels_have_one():
    targets = random_views(1, 1, (4, 4))[:, 0]
    depths = torch.tensor(
        [[5.0, 3.0, 2.0, 2.0], [4.0, 9.0, 2.0, 0.0], [1.0, 1.0, 3.0, 3.0], [1.0, 1.0, 3.0, 3.0]]
    )
    masks = torch.ones(1, 4, 4, dtype=torch.bool)
    masks[0, 3, 0] = False
    targets = replace(targets, depths=depths[None], masks=masks)
    truth = read_window(targets, Window(torch.zeros(1, 2, dtype=torch.long), (2, 2), 2))
    assert truth.depth.tolist() == [[4.0, 0.0, 0.0, 3.0]]
    assert truth.bundle_valid.tolist() == [[True, True, False, True]]


def perfect(depth):
    """A window of 8x8 pixels at a depth, rendered without an error, and its truth."""
    views = random_views(1, 1, (8, 8))[:, 0]
    views = replace(views, depths=torch.full((1, 8, 8), depth))
    window = Window(torch.zeros(1, 2, dtype=torch.long), (4, 4), 2)
    truth = read_window(views, window)
    composite = Composite(truth.bundle_rgb, truth.depth, torch.ones(1, 16), torch.ones(1, 16, 1))
    bundles = Bundles(composite, torch.zeros(1, 16, 2), torch.ones(1, 16), truth.depth[..., None])
    edges = torch.tensor([2.0, 3.5, 4.5, 6.0]).expand(1, 16, 4)
    t, weights = torch.tensor([3.0, 4.0, 5.0]), torch.tensor([0.0, 1.0, 0.0])
    level = RayBins(edges, t.expand(1, 16, 3), weights.expand(1, 16, 3), torch.zeros(1, 16, 3, 1))
    rays = pixel_rays(views.cameras, window.centers())
    return WindowRendering(truth.rgb, bundles, (level,), rays), truth


def relative(error):
    """What a squared error of a single window counts in the total."""
    return ERROR_SCALE * math.log1p(float(error) / ERROR_SCALE)


def test_a_perfect_window_has_no_error(encoded):
    rendering, truth = perfect(4.0)
    losses = window_losses(encoded, rendering, truth, NEAR_FAR, LossConfig(ssim_weight=0.1))
    for name in ("fine", "composited", "depth", "planes", "ssim"):
        assert float(losses[name]) == pytest.approx(0, abs=2e-5), name
    assert float(losses["total"]) == pytest.approx(0.2 * relative(losses["coarse"]), abs=1e-5)


def test_terms_of_a_window_by_hand(encoded):
    rendering, truth = perfect(4.0)
    composite = rendering.bundles.composite
    composite = replace(composite, rgb=composite.rgb + 0.2, depth=composite.depth + 0.4)
    rendering = replace(
        rendering, rgb=rendering.rgb + 0.1, bundles=replace(rendering.bundles, composite=composite)
    )
    config = LossConfig(0.0, 0.5, 0.0, 0.0, composited_weight=0.25)
    losses = window_losses(encoded, rendering, truth, NEAR_FAR, config)
    assert float(losses["fine"]) == pytest.approx(0.01)
    assert float(losses["composited"]) == pytest.approx(0.04)
    assert float(losses["depth"]) == pytest.approx(0.1)
    colors = relative(0.01) + 0.25 * relative(0.04)
    assert float(losses["total"]) == pytest.approx(colors + 0.5 * 0.1)


def test_masked_pixels_do_not_count(encoded):
    rendering, truth = perfect(4.0)
    wrong = rendering.rgb.clone()
    wrong[..., 0, 0] = math.inf
    valid = truth.valid.clone()
    valid[..., 0, 0] = False
    truth = WindowTruth(truth.rgb, valid, truth.depth, truth.bundle_rgb, truth.bundle_valid)
    losses = window_losses(
        encoded, replace(rendering, rgb=wrong), truth, NEAR_FAR, LossConfig(ssim_weight=0.0)
    )
    assert float(losses["fine"]) == 0


def test_entropy_asks_for_the_bins_around_a_depth():
    known = torch.ones(1, 1, dtype=torch.bool)
    edges = [2.0, 3.0, 5.0, 6.0]
    for depth, weights in ((4.0, [0.0, 1.0, 0.0]), (2.1, [1.0, 0.0, 0.0]), (5.9, [0.0, 0.0, 1.0])):
        level = bins([2.5, 4.0, 5.5], weights, edges)
        assert float(bin_entropy(level, torch.tensor([[depth]]), known)) == pytest.approx(
            0, abs=2e-5
        )
    between = bins([2.5, 4.0, 5.5], [0.25, 0.75, 0.0], edges)
    expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    value = bin_entropy(between, torch.tensor([[2.5 + 0.75 * 1.5]]), known)
    assert float(value) == pytest.approx(expected, abs=1e-3)
    outside = bin_entropy(between, torch.tensor([[7.0]]), known)
    assert float(outside) == 0 == float(bin_entropy(between, torch.tensor([[4.0]]), ~known))


def test_guidance_asks_for_the_bins_that_the_rendering_used():
    rendering, truth = perfect(4.0)
    assert float(level_guidance(rendering, truth.bundle_valid)) == pytest.approx(0, abs=1e-5)
    elsewhere = replace(rendering.bundles, t=torch.full((1, 16, 1), 5.0))
    moved = replace(rendering, bundles=elsewhere)
    assert float(level_guidance(moved, truth.bundle_valid)) > 5


def test_the_refinement_learns_from_the_depth_of_sources(tiny_model, make_views):
    sources = make_views(1, 3, SIZE)
    sources = replace(sources, depths=torch.full_like(sources.depths, 4.0))
    scene = tiny_model.encode(sources, NEAR_FAR, refine=False)
    loss = source_entropy(tiny_model, scene, sources[:, 1], NEAR_FAR, 512, generator())
    loss.backward()
    networks = (tiny_model.volume.network, tiny_model.fine_volume.network)
    assert all(p.grad is not None for network in networks for p in network.parameters())
    tiny_model.zero_grad()


def test_levels_are_composited_over_the_background(encoded):
    rendering, truth = perfect(4.0)
    level = replace(rendering.levels[0], weights=torch.zeros(1, 16, 3))
    rendering = replace(rendering, levels=(level,))
    middle = truth.bundle_rgb.unflatten(-1, (4, 3)).mean(-2)
    for grey in (0.0, 1.0):
        losses = window_losses(encoded, rendering, truth, NEAR_FAR, LossConfig(), background=grey)
        assert float(losses["coarse"]) == pytest.approx(float((middle - grey).square().mean()))


def test_a_window_without_depth_has_no_error_of_depth(encoded):
    rendering, truth = perfect(4.0)
    truth = replace(truth, depth=torch.zeros(1, 16))
    losses = window_losses(encoded, rendering, truth, NEAR_FAR, LossConfig())
    assert float(losses["depth"]) == float(losses["planes"]) == 0


def test_dissimilarity_counts_where_pixels_do(encoded):
    rendering, truth = perfect(4.0)
    config, found = LossConfig(ssim_weight=1.0), []
    spoilt = replace(rendering, rgb=torch.full_like(truth.rgb, 0.5))
    for valid in (truth.valid, torch.zeros_like(truth.valid)):
        terms = window_losses(encoded, spoilt, replace(truth, valid=valid), NEAR_FAR, config)
        found.append(float(terms["ssim"]))
    assert found[0] > 0.3 and found[1] == 0


def test_perceptual_distance_is_used_when_there_is_one(encoded):
    rendering, truth = perfect(4.0)
    rendering = replace(rendering, rgb=truth.rgb + 0.25)
    config = LossConfig(0.0, 0.0, 0.0, 0.0, lpips_weight=2.0, composited_weight=0.0)

    def distance(ours, theirs):
        return (ours - theirs).abs().mean((1, 2, 3))

    losses = window_losses(encoded, rendering, truth, NEAR_FAR, config, distance)
    assert float(losses["lpips"]) == pytest.approx(0.25)
    assert float(losses["total"]) == pytest.approx(relative(0.0625) + 0.5)
    assert float(window_losses(encoded, rendering, truth, NEAR_FAR, config)["lpips"]) == 0


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="ssim_weight=-1"):
        LossConfig(ssim_weight=-1.0)


def test_half_an_error_counts_alike_in_easy_and_difficult_windows():
    squared = torch.tensor([0.05, 0.4])[:, None, None].expand(2, 4, 4)
    everywhere = torch.ones(2, 4, 4, dtype=torch.bool)
    gains = [
        relative_error(squared[[i]], everywhere[[i]])
        - relative_error(squared[[i]] / 2, everywhere[[i]])
        for i in (0, 1)
    ]
    assert gains[1].item() == pytest.approx(gains[0].item(), rel=0.1)
    # The second window is eight times as wrong: as a squared error it would count eight times.
    half = everywhere.clone()
    half[1] = False
    only_first = relative_error(squared, half)
    torch.testing.assert_close(only_first, relative_error(squared[:1], everywhere[:1]))
