import pytest
import torch

from models.volume_rendering import alphas, composite_weights, transmittance

FAR = torch.tensor([[6.0]])


def straight(count: int):
    return torch.linspace(2, 6, count + 1).reshape(1, 1, -1)


def composite(densities, colors, edges, far=FAR, background=0.0):
    depths = densities * edges.diff(dim=-1)
    weights = alphas(depths) * transmittance(depths)
    middles = (edges[..., 1:] + edges[..., :-1]) / 2
    return composite_weights(weights, colors, middles, far, background)


@pytest.mark.parametrize("count", [1, 7, 400])
def test_constant_fog_has_the_closed_form_however_finely_it_is_cut(count):
    edges = straight(count)
    sigma = 0.7
    densities = torch.full((1, 1, count), sigma)
    colors = torch.full((1, 1, count, 3), 0.5)
    out = composite(densities, colors, edges)
    opacity = 1 - torch.exp(torch.tensor(-sigma * 4))
    torch.testing.assert_close(out.opacity.squeeze(), opacity)
    torch.testing.assert_close(out.rgb.squeeze(), 0.5 * opacity.expand(3))
    # E[t] = 2 + (1 - exp(-sigma L)) / sigma when what passes counts as depth 6.
    if count == 400:
        torch.testing.assert_close(out.depth.squeeze(), 2 + opacity / sigma, rtol=1e-4, atol=0)


def test_agrees_with_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    densities = torch.rand(1, 1, 9, generator=generator, dtype=torch.float64) * 3
    colors = torch.rand(1, 1, 9, 3, generator=generator, dtype=torch.float64)
    edges = torch.rand(1, 1, 10, generator=generator, dtype=torch.float64).cumsum(-1) + 1
    light, rgb, depth = 1.0, torch.zeros(3, dtype=torch.float64), 0.0
    for i in range(9):
        width = float(edges[0, 0, i + 1] - edges[0, 0, i])
        alpha = 1 - 2.718281828459045 ** (-float(densities[0, 0, i]) * width)
        rgb += light * alpha * colors[0, 0, i]
        depth += light * alpha * float(edges[0, 0, i] + edges[0, 0, i + 1]) / 2
        light *= 1 - alpha
    far = torch.tensor([[20.0]], dtype=torch.float64)
    out = composite(densities, colors, edges, far, background=0.25)
    torch.testing.assert_close(out.rgb[0, 0], rgb + light * 0.25)
    torch.testing.assert_close(float(out.depth), depth + light * 20)
    torch.testing.assert_close(out.weights.sum(-1), out.opacity)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e6, 1e30])
def test_extreme_densities_stay_finite_with_finite_gradients(value):
    edges = straight(8)
    densities = torch.full((1, 1, 8), value, requires_grad=True)
    colors = torch.rand(1, 1, 8, 3, generator=torch.Generator().manual_seed(1))
    out = composite(densities, colors, edges)
    (out.rgb.sum() + out.depth.sum() + out.opacity.sum()).backward()
    assert out.rgb.isfinite().all() and out.depth.isfinite().all()
    assert densities.grad is not None and densities.grad.isfinite().all()
    assert 0 <= float(out.opacity.detach()) <= 1 + 1e-6


def test_a_ray_that_hits_nothing_shows_the_background_at_far():
    edges = straight(5)
    zeros = torch.zeros(1, 1, 5)
    out = composite(zeros, torch.rand(1, 1, 5, 3), edges, torch.tensor([[7.0]]), 1.0)
    assert out.rgb.tolist() == [[[1, 1, 1]]]
    assert float(out.opacity) == 0 and float(out.depth) == 7


def test_an_opaque_wall_hides_what_is_behind():
    edges = straight(4)
    densities = torch.tensor([[[0.0, 1e4, 1e4, 1e4]]])
    colors = torch.eye(4)[:, :3][None, None]
    out = composite(densities, colors, edges)
    torch.testing.assert_close(out.rgb, colors[:, :, 1])
    torch.testing.assert_close(float(out.depth), 3.5)


def test_thin_bins_keep_their_alpha():
    depth = torch.tensor([1e-9])
    torch.testing.assert_close(alphas(depth), depth)
    torch.testing.assert_close(
        transmittance(torch.tensor([1.0, 2.0, 3.0])), torch.tensor([0.0, -1, -3]).exp()
    )
