"""Correspondences between views, and the losses on features, shifts and attention."""

import pytest
import torch
from torch import nn

from datasets.views import Views
from models.vggt.attention import Attention, grid_rotations
from models.vggt.network import random_vggt
from training.vggt import matching
from training.vggt.matching import (
    NO_MATCH,
    AttentionSupervision,
    Matches,
    MatchingHeads,
    attention_logits,
    find_matches,
    loss_weight,
    next_views,
    reference_views,
)
from utils.cameras import Cameras

PATCH = 14
SWAPPED = [1, 0]


def shifted_pair(shift):
    """Two cameras side by side before a wall at z = 1; one unit is 70 pixels there."""
    size = (56, 70)
    intrinsics = torch.tensor([[70.0, 0, 35], [0, 70, 28], [0, 0, 1.0]]).expand(1, 2, 3, 3)
    c2w = torch.eye(4).repeat(1, 2, 1, 1)
    c2w[0, 1, 0, 3] = shift / 70
    depths = torch.ones(1, 2, *size)
    return Views(torch.rand(1, 2, 3, *size), Cameras(intrinsics, c2w), depths, depths > 0)


def patches_of(views, others=SWAPPED):
    return find_matches(views, others, PATCH).patches


def test_matches_of_a_shifted_wall_by_hand():
    # Moving right by one patch moves the wall left by one patch.
    matches = patches_of(shifted_pair(14.0)).unflatten(-1, (4, 5))
    grid = torch.arange(20).view(4, 5)
    assert (matches[0, 0, :, 0] == NO_MATCH).all()
    assert torch.equal(matches[0, 0, :, 1:], grid[:, :4])
    assert (matches[0, 1, :, 4] == NO_MATCH).all()
    assert torch.equal(matches[0, 1, :, :4], grid[:, 1:])


def test_hidden_masked_and_unknown_surfaces_match_nothing():
    views = shifted_pair(0.0)
    assert (patches_of(views) != NO_MATCH).all()
    views.depths[0, 1, :28] = 0.5  # Something stands in front in the second view alone,
    views.depths[0, 0, 28:42] = 0.0  # here the first view has no depth,
    views.masks[0, 1, 42:] = False  # and here the second view must not be used.
    assert (patches_of(views)[0, 0] == NO_MATCH).all()


def test_points_behind_the_other_camera_match_nothing(monkeypatch):
    monkeypatch.setattr(matching, "TOLERANCE", 1e9)
    views = shifted_pair(0.0)
    views.cameras.c2w[0, 1, 2, 3] = 5.0
    assert (patches_of(views)[0, 0] == NO_MATCH).all()


def test_any_view_can_be_matched_with_any(views):
    matches = patches_of(views, [2, 0, 0])
    order = [1, 0, 2]
    assert torch.equal(patches_of(views.take(order), [1, 2, 1]), matches[:, order])
    assert (matches != NO_MATCH).float().mean() > 0.5
    assert next_views(3) == [1, 2, 0]
    assert reference_views(4) == [1, 0, 0, 0]
    assert reference_views(1) == next_views(1) == [0]


def test_features_are_matched_where_they_tell():
    matches = patches_of(shifted_pair(14.0))
    wall = torch.randn(4, 6, 64, generator=torch.Generator().manual_seed(0))
    first, second = wall[:, :5].flatten(0, 1), wall[:, 1:].flatten(0, 1)
    layer = torch.stack([first, second])[None]
    heads = MatchingHeads(64)
    for projection in heads.projections:
        nn.init.eye_(projection[1].weight)
    right = heads.feature_loss([layer, layer], matches)
    assert right.accuracy == 1
    wrong = heads.feature_loss([layer.flip(2)] * 2, matches)
    assert wrong.accuracy < 0.5
    assert right.loss < 0.5 * wrong.loss
    nothing = heads.feature_loss([layer, layer], torch.full_like(matches, NO_MATCH))
    nothing.loss.backward()
    assert nothing.loss == nothing.accuracy == 0


def test_shifts_by_hand():
    found = find_matches(shifted_pair(9.0), SWAPPED, PATCH)
    seen = found.patches != NO_MATCH
    expected = torch.zeros(1, 2, 20, 2)
    expected[0, :, :, 0] = torch.tensor([[-9 / 14], [9 / 14]])
    torch.testing.assert_close(found.shifts[seen], expected[seen])
    assert (found.shifts[~seen] == 0).all()


def test_shifts_are_compared_where_there_are_matches():
    heads = MatchingHeads(4)
    for projection in heads.shift_projections:
        nn.init.zeros_(projection[1].weight)
        projection[1].bias.data = torch.tensor([1.0, 0.0])
    patches = torch.tensor([[[0, NO_MATCH], [1, 1]]])
    shifts = torch.zeros(1, 2, 2, 2)
    shifts[0, 1, 0] = torch.tensor([1.0, 2.0])
    loss = heads.shift_loss([torch.rand(1, 2, 2, 4)] * 3, Matches(patches, shifts))
    # Errors 1, none, 2, 1 patches: Huber takes off half of 0.5.
    torch.testing.assert_close(loss, torch.tensor((0.75 + 1.75 + 0.75) / 3))


def test_the_losses_fade_out():
    assert [loss_weight(step, 100) for step in (0, 50, 75, 100, 1000)] == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert loss_weight(0, 0) == 0.0


def test_the_supervised_attention_is_the_networks_own():
    torch.manual_seed(0)
    attention = Attention(16, 2, qk_norm=True)
    nn.init.eye_(attention.proj.weight)
    nn.init.zeros_(attention.proj.bias)
    rotations = grid_rotations((2, 3), 1, 8, torch.device("cpu"))
    tokens = torch.randn(3, 7, 16)
    shares = attention_logits(attention, tokens, rotations).softmax(-1)
    values = attention.qkv(tokens)[..., 32:40]
    torch.testing.assert_close(shares @ values, attention(tokens, rotations)[..., :8])


@pytest.fixture
def network(network_config):
    return random_vggt(network_config, 0, 1.0)


def supervised(network, views):
    supervision = AttentionSupervision(network.aggregator)
    others = reference_views(views.images.shape[1])
    matches = patches_of(views, others)

    def step():
        network.aggregator(views.images)
        return supervision.loss(matches, others)

    return step


def test_heads_learn_to_attend_to_matches(network, views):
    step = supervised(network, views)
    optimizer = torch.optim.Adam(network.aggregator.parameters(), 3e-3)
    first = step()
    for _ in range(60):
        result = step()
        result.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert result.loss < 0.6 * first.loss
    assert result.accuracy > 4 * first.accuracy


def test_only_supervised_blocks_and_those_before_them_learn(network, views):
    supervised(network, views)().loss.backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None}
    assert "aggregator.patch_embed.patch_embed.proj.weight" in reached
    assert "aggregator.global_blocks.2.attn.qkv.weight" in reached
    assert "aggregator.global_blocks.2.mlp.fc1.weight" not in reached
    values = network.aggregator.global_blocks[2].attn.qkv.weight.grad[32:]
    assert (values == 0).all()


def test_recorded_tokens_are_used_once_and_matches_of_nothing_cost_nothing(network, views):
    supervision = AttentionSupervision(network.aggregator)
    network.aggregator(views.images)
    result = supervision.loss(torch.full((2, 3, 24), NO_MATCH), [1, 0, 0])
    assert result.loss == result.accuracy == 0
    network.aggregator(views.images)
    supervision.clear()
    with pytest.raises(RuntimeError):
        supervision.loss(torch.zeros(2, 3, 24, dtype=torch.long), [1, 0, 0])
