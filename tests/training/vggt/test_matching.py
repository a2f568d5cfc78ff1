import torch
from torch import nn

from datasets.views import Views
from training.vggt.matching import (
    NO_MATCH,
    Matches,
    MatchingConfig,
    MatchingHeads,
    find_matches,
    next_views,
    reference_views,
)
from utils.cameras import Cameras

PATCH = 14
SWAPPED = [1, 0]


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
    matches = find_matches(shifted_pair(14.0), SWAPPED, PATCH, 0.03).patches.unflatten(-1, (4, 5))
    grid = torch.arange(20).view(4, 5)
    assert (matches[0, 0, :, 0] == NO_MATCH).all()
    assert torch.equal(matches[0, 0, :, 1:], grid[:, :4])
    assert (matches[0, 1, :, 4] == NO_MATCH).all()
    assert torch.equal(matches[0, 1, :, :4], grid[:, 1:])


def test_hidden_masked_and_unknown_surfaces_match_nothing():
    views = shifted_pair(0.0)
    assert (find_matches(views, SWAPPED, PATCH, 0.03).patches != NO_MATCH).all()
    views.depths[0, 1, :28] = 0.5  # Something stands in front in the second view alone,
    views.depths[0, 0, 28:42] = 0.0  # here the first view knows nothing,
    views.masks[0, 1, 42:] = False  # and here the second view must not be used.
    matches = find_matches(views, SWAPPED, PATCH, 0.03).patches
    assert (matches[0, 0] == NO_MATCH).all()


def test_points_behind_the_other_camera_match_nothing():
    views = shifted_pair(0.0)
    views.cameras.c2w[0, 1, 2, 3] = 5.0
    assert (find_matches(views, SWAPPED, PATCH, 1e9).patches[0, 0] == NO_MATCH).all()


def test_matching_is_learnt_where_features_tell(views: Views):
    generator = torch.Generator().manual_seed(0)
    matches = find_matches(shifted_pair(14.0), SWAPPED, PATCH, 0.03).patches
    wall = torch.randn(4, 6, 16, generator=generator)
    first, second = wall[:, :5].flatten(0, 1), wall[:, 1:].flatten(0, 1)
    layer = torch.stack([first, second])[None]
    heads = MatchingHeads(16, MatchingConfig(matching_dim=16, matching_layers=(1,)))
    for module in heads.modules():
        if isinstance(module, nn.Linear):
            nn.init.eye_(module.weight)
    right = heads.match([torch.zeros_like(layer), layer], matches)
    assert right.accuracy == 1
    wrong = heads.match([torch.zeros_like(layer), layer.flip(2)], matches)
    assert wrong.accuracy < 0.5
    assert right.loss < 0.5 * wrong.loss


def test_no_matches_cost_nothing():
    heads = MatchingHeads(8, MatchingConfig(matching_dim=4))
    layers = [torch.rand(1, 2, 6, 8) for _ in range(4)]
    result = heads.match(layers, torch.full((1, 2, 6), NO_MATCH))
    result.loss.backward()
    assert result.loss == 0
    assert result.accuracy == 0


def test_presence_fades_out():
    config = MatchingConfig(matching_until=100)
    assert [config.presence(step) for step in (0, 50, 75, 100, 1000)] == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert MatchingConfig(matching_until=0).presence(0) == 0.0


def test_views_to_match_with():
    assert next_views(3) == [1, 2, 0]
    assert reference_views(4) == [1, 0, 0, 0]
    assert reference_views(1) == next_views(1) == [0]


def test_any_view_can_be_matched_with_any(views: Views):
    others = [2, 0, 0]
    matches = find_matches(views, others, PATCH, 0.03).patches
    order = [1, 0, 2]
    swapped = Views(
        views.images[:, order],
        Cameras(views.cameras.intrinsics[:, order], views.cameras.c2w[:, order]),
        views.depths[:, order],
        views.masks[:, order],
    )
    again = find_matches(swapped, [1, 2, 1], PATCH, 0.03).patches
    assert torch.equal(again, matches[:, order])
    assert (matches != NO_MATCH).float().mean() > 0.5


def test_shifts_by_hand():
    found = find_matches(shifted_pair(9.0), SWAPPED, PATCH, 0.03)
    seen = found.patches != NO_MATCH
    expected = torch.zeros(1, 2, 20, 2)
    expected[0, :, :, 0] = torch.tensor([[-9 / 14], [9 / 14]])
    torch.testing.assert_close(found.shifts[seen], expected[seen])
    assert (found.shifts[~seen] == 0).all()


def test_shifts_are_judged_where_there_are_matches():
    heads = MatchingHeads(4, MatchingConfig(shift_layers=(0,), matching_dim=4))
    linear = heads.shift_projections[0][1]
    nn.init.zeros_(linear.weight)
    linear.bias.data = torch.tensor([1.0, 0.0])
    patches = torch.tensor([[[0, NO_MATCH], [1, 1]]])
    shifts = torch.zeros(1, 2, 2, 2)
    shifts[0, 1, 0] = torch.tensor([1.0, 2.0])
    loss = heads.tell_shifts([torch.rand(1, 2, 2, 4)], Matches(patches, shifts))
    # Errors 1, none, 2, 1 patches: Huber takes off half of 0.5.
    torch.testing.assert_close(loss, torch.tensor((0.75 + 1.75 + 0.75) / 3))
