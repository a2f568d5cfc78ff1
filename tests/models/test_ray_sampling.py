import pytest
import torch

from models.ray_sampling import DepthPlanes, importance_bins

NEAR_FAR = torch.tensor([[2.0, 6.0], [1.0, 3.0]])


def edges_of(count, rays=1):
    return DepthPlanes(NEAR_FAR[:1], count).edges()[:, None].expand(-1, rays, -1)


def test_planes_divide_the_range_evenly_in_depth_or_its_inverse():
    planes = DepthPlanes(NEAR_FAR, 4)
    torch.testing.assert_close(planes.edges()[0], torch.tensor([2.0, 3, 4, 5, 6]))
    torch.testing.assert_close(planes.centers()[1], torch.tensor([1.25, 1.75, 2.25, 2.75]))
    edges = planes.edges()
    torch.testing.assert_close((edges[..., 1:] + edges[..., :-1]) / 2, planes.centers())
    inverse = DepthPlanes(NEAR_FAR[:1], 2, lindisp=True)
    torch.testing.assert_close(inverse.edges()[0], torch.tensor([2.0, 3.0, 6.0]))


@pytest.mark.parametrize("lindisp", [False, True])
def test_coordinates_invert_depths(lindisp):
    planes = DepthPlanes(NEAR_FAR.double(), 8, lindisp)
    coordinates = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(planes.coordinates(planes.depths(coordinates)), coordinates)
    # Behind the camera, too, coordinates are finite.
    planes = DepthPlanes(NEAR_FAR[:1], 8, lindisp)
    assert planes.coordinates(torch.tensor([[-5.0, 0.0, 1e-9, 1e9]])).isfinite().all()


def test_importance_follows_the_mass():
    weights = torch.zeros(1, 1, 40)
    weights[..., 25] = 0.9
    fine, _ = importance_bins(edges_of(40), weights, 32)
    near_surface = ((fine > 4.3) & (fine < 4.8)).float().mean()
    assert near_surface > 0.8
    assert (fine.diff(dim=-1) >= 0).all() and fine.min() >= 2 and fine.max() <= 6


@pytest.mark.parametrize("count", [8, 16, 32])
def test_a_wrong_proposal_rules_out_no_depth(count):
    weights = torch.zeros(1, 1, 48)
    weights[..., 3] = 1.0
    fine, _ = importance_bins(edges_of(48), weights, count, floor=0.15)
    torch.testing.assert_close(fine[0, 0, [0, -1]], NEAR_FAR[0])
    # No bin is wider than what the evenly spread share of the mass allows.
    assert fine.diff(dim=-1).max() <= 4 / (0.15 * count) + 1e-4


def test_no_mass_falls_back_to_even_coverage():
    fine, _ = importance_bins(edges_of(8), torch.zeros(1, 1, 8), 16)
    torch.testing.assert_close(
        fine.diff(dim=-1), torch.full((1, 1, 16), 4 / 16), rtol=1e-4, atol=1e-5
    )


def test_quantiles_match_the_distribution_in_the_long_run():
    weights = torch.tensor([0.1, 0.1, 0.1, 0.7]).expand(1, 4000, 4)
    generator = torch.Generator().manual_seed(0)
    fine, _ = importance_bins(edges_of(4, 4000), weights, 7, floor=0.2, generator=generator)
    # Spread weights: (0.1, 0.1, 0.4, 0.7), so the last bin holds 0.7 / 1.3 of the draws that
    # follow the weights, and a quarter of the others.
    share = (fine[..., 1:-1] > 5).float().mean()
    assert abs(float(share) - (0.8 * 0.7 / 1.3 + 0.05)) < 0.01


def test_only_spread_weights_have_samples_beside_a_peak():
    weights = torch.zeros(1, 1, 40)
    weights[..., 25] = 1.0
    beside = []
    for spread in (True, False):
        fine, _ = importance_bins(edges_of(40), weights, 200, floor=0.1, spread=spread)
        beside.append((((fine > 4.4) & (fine < 4.5)) | ((fine > 4.6) & (fine < 4.7))).sum().item())
    # Half of the 180 that follow the weights, or only what is spread evenly over 40 planes.
    assert abs(beside[0] - 90) <= 4 and beside[1] <= 4


def test_importance_is_detached():
    weights = torch.rand(1, 2, 4, requires_grad=True)
    assert not any(x.requires_grad for x in importance_bins(edges_of(4, 2), weights, 4))
