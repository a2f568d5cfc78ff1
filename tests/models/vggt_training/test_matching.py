import torch
from torch import nn

from datasets.views import Views
from models.vggt_training.matching import (
    NO_MATCH,
    MatchingConfig,
    MatchingHeads,
    find_matches,
)
from utils.cameras import Cameras

PATCH = 14


def shifted_pair(shift: float) -> Views:
    """Two cameras side by side before a wall at z = 1; one unit is 70 pixels there."""
    size = (56, 70)
    intrinsics = torch.tensor([[70.0, 0, 35], [0, 70, 28], [0, 0, 1.0]]).expand(1, 2, 3, 3)
    c2w = torch.eye(4).repeat(1, 2, 1, 1)
    c2w[0, 1, 0, 3] = shift / 70
    depths = torch.ones(1, 2, *size)
    return Views(torch.rand(1, 2, 3, *size), Cameras(intrinsics, c2w), depths, depths > 0)


def test_matches_of_a_shifted_wall_by_hand():
    # Moving right by one patch moves the wall left by one patch.
    matches = find_matches(shifted_pair(14.0), PATCH, 0.03).unflatten(-1, (4, 5))
    grid = torch.arange(20).view(4, 5)
    assert (matches[0, 0, :, 0] == NO_MATCH).all()
    assert torch.equal(matches[0, 0, :, 1:], grid[:, :4])
    assert (matches[0, 1, :, 4] == NO_MATCH).all()
    assert torch.equal(matches[0, 1, :, :4], grid[:, 1:])


def test_hidden_masked_and_unknown_surfaces_match_nothing():
    views = shifted_pair(0.0)
    assert (find_matches(views, PATCH, 0.03) != NO_MATCH).all()
    views.depths[0, 1, :28] = 0.5  # Something stands in front in the second view alone,
    views.depths[0, 0, 28:42] = 0.0  # here the first view knows nothing,
    views.masks[0, 1, 42:] = False  # and here the second view must not be used.
    matches = find_matches(views, PATCH, 0.03)
    assert (matches[0, 0] == NO_MATCH).all()


def test_points_behind_the_other_camera_match_nothing():
    views = shifted_pair(0.0)
    views.cameras.c2w[0, 1, 2, 3] = 5.0
    assert (find_matches(views, PATCH, 1e9)[0, 0] == NO_MATCH).all()


def test_matching_is_learnt_where_features_tell(views: Views):
    generator = torch.Generator().manual_seed(0)
    matches = find_matches(shifted_pair(14.0), PATCH, 0.03)
    wall = torch.randn(4, 6, 16, generator=generator)
    first, second = wall[:, :5].flatten(0, 1), wall[:, 1:].flatten(0, 1)
    layer = torch.stack([first, second])[None]
    heads = MatchingHeads(16, MatchingConfig(matching_dim=16, matching_layers=(1,)))
    for module in heads.modules():
        if isinstance(module, nn.Linear):
            nn.init.eye_(module.weight)
    right = heads([torch.zeros_like(layer), layer], matches)
    assert right.accuracy == 1
    wrong = heads([torch.zeros_like(layer), layer.flip(2)], matches)
    assert wrong.accuracy < 0.5
    assert right.loss < 0.5 * wrong.loss


def test_no_matches_cost_nothing():
    heads = MatchingHeads(8, MatchingConfig(matching_dim=4))
    layers = [torch.rand(1, 2, 6, 8) for _ in range(4)]
    result = heads(layers, torch.full((1, 2, 6), NO_MATCH))
    result.loss.backward()
    assert result.loss == 0
    assert result.accuracy == 0


def test_weight_fades_out():
    config = MatchingConfig(matching_weight=2.0, matching_until=100)
    assert [config.weight(step) for step in (0, 50, 75, 100, 1000)] == [2.0, 2.0, 1.0, 0.0, 0.0]
    assert MatchingConfig(matching_until=0).weight(0) == 0.0
