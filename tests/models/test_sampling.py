import torch

from models.sampling import bin_centers, importance_edges, stratified_edges

NEAR_FAR = torch.tensor([[2.0, 6.0], [1.0, 3.0]])


def test_even_edges_without_a_generator():
    edges = stratified_edges(NEAR_FAR, 3, 4)
    torch.testing.assert_close(edges[0, 1], torch.tensor([2.0, 3, 4, 5, 6]))
    torch.testing.assert_close(bin_centers(edges)[1, 0], torch.tensor([1.25, 1.75, 2.25, 2.75]))


def test_inverse_depth_spacing():
    edges = stratified_edges(NEAR_FAR[:1], 1, 2, lindisp=True)
    torch.testing.assert_close(edges[0, 0], torch.tensor([2.0, 3.0, 6.0]))


def test_jittered_edges_stay_sorted_inside_and_differ_by_ray():
    edges = stratified_edges(NEAR_FAR, 50, 16, generator=torch.Generator().manual_seed(0))
    assert (edges.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(edges[..., 0], NEAR_FAR[:, :1].expand(2, 50))
    torch.testing.assert_close(edges[..., -1], NEAR_FAR[:, 1:].expand(2, 50))
    assert not torch.equal(edges[0, 0], edges[0, 1])


def test_importance_follows_the_mass():
    edges = stratified_edges(NEAR_FAR[:1], 1, 40)
    weights = torch.zeros(1, 1, 40)
    weights[..., 25] = 0.9
    fine = importance_edges(edges, weights, 32)
    near_surface = ((fine > 4.3) & (fine < 4.8)).float().mean()
    assert near_surface > 0.6
    assert (fine.diff(dim=-1) >= 0).all() and fine.min() >= 2 and fine.max() <= 6


def test_no_mass_falls_back_to_even_coverage():
    edges = stratified_edges(NEAR_FAR[:1], 1, 8)
    fine = importance_edges(edges, torch.zeros(1, 1, 8), 16)
    torch.testing.assert_close(
        fine.diff(dim=-1), torch.full((1, 1, 16), 4 / 17), rtol=1e-4, atol=1e-5
    )


def test_quantiles_match_the_distribution_in_the_long_run():
    edges = stratified_edges(NEAR_FAR[:1], 4000, 4)
    weights = torch.tensor([0.1, 0.1, 0.1, 0.7]).expand(1, 4000, 4)
    fine = importance_edges(
        edges, weights, 7, padding=0.0, generator=torch.Generator().manual_seed(0)
    )
    # Spread weights: (0.1, 0.1, 0.4, 0.7), so the last bin holds 0.7 / 1.3 of the draws.
    share = (fine > 5).float().mean()
    assert abs(float(share) - 0.7 / 1.3) < 0.01


def test_importance_is_detached():
    edges = stratified_edges(NEAR_FAR, 2, 4)
    weights = torch.rand(2, 2, 4, requires_grad=True)
    assert not importance_edges(edges, weights, 4).requires_grad
