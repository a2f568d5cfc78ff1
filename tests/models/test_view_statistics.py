import torch

from models.encoder import soft_normalize
from models.projection import view_statistics
from models.radiance_field import masked_softmax


def some_features(views=4, seed=0):
    return torch.randn(2, views, 3, 5, 8, generator=torch.Generator().manual_seed(seed))


def some_mask(views=4):
    valid = torch.rand(2, views, 3, 5, generator=torch.Generator().manual_seed(1)) > 0.4
    valid[:, :, 0, 0] = False
    valid[:, 1:, 0, 1] = False
    return valid


def test_similarity_is_the_mean_over_pairs_of_valid_views():
    features, valid = some_features(), some_mask()
    result = view_statistics(features, valid).similarity(groups=2)
    for b, r, s in [(0, 1, 2), (1, 2, 4), (0, 2, 0), (0, 0, 0), (1, 0, 1)]:
        views = [v for v in range(4) if valid[b, v, r, s]]
        for group in range(2):
            chosen = [features[b, v, r, s, 4 * group : 4 * group + 4] for v in views]
            pairs = [x @ y for i, x in enumerate(chosen) for y in chosen[i + 1 :]]
            expected = torch.stack(pairs).mean() if pairs else torch.tensor(0.0)
            torch.testing.assert_close(result[b, r, s, group], expected, atol=1e-5, rtol=1e-5)


def test_mean_and_variance_ignore_invalid_views():
    features, valid = some_features(), some_mask()
    seen = view_statistics(features, valid)
    chosen = features[1, valid[1, :, 2, 3], 2, 3]
    torch.testing.assert_close(seen.mean[1, 2, 3], chosen.mean(0))
    torch.testing.assert_close(seen.variance[1, 2, 3], chosen.var(0, unbiased=False))
    assert (seen.mean[:, 0, 0] == 0).all() and (seen.variance[:, 0, 0] == 0).all()
    assert torch.equal(seen.count, valid.sum(1).float())


def test_products_of_bounded_features_are_cosines_where_there_is_something_to_see():
    x, y = torch.randn(2, 1, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    cosine = torch.cosine_similarity(x, y, dim=1)
    strong = (soft_normalize(1000 * x) * soft_normalize(1000 * y)).sum(1)
    torch.testing.assert_close(strong, cosine, atol=1e-4, rtol=0)
    assert soft_normalize(1000 * x).norm(dim=1).max() < 1
    torch.testing.assert_close(soft_normalize(1e-3 * x), 1e-3 * x, atol=1e-8, rtol=1e-4)


def test_softmax_is_zero_where_no_view_sees():
    valid = some_mask()
    weights = masked_softmax(torch.randn(2, 4, 3, 5) * 30, valid)
    assert (weights[~valid] == 0).all()
    torch.testing.assert_close(weights.sum(1), valid.any(1).float())


def test_gradients_are_finite_for_constant_and_zero_features():
    features = torch.zeros(1, 3, 1, 1, 8, requires_grad=True)
    valid = torch.ones(1, 3, 1, 1, dtype=torch.bool)
    seen = view_statistics(features, valid)
    (seen.similarity(2).sum() + seen.variance.sum()).backward()
    assert features.grad is not None and features.grad.isfinite().all()
