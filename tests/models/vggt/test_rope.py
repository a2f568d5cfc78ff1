import torch

from models.vggt.rope import Rotations, grid_rotations, rotate

DEVICE = torch.device("cpu")


def test_positions_by_hand():
    rotations = grid_rotations((2, 3), 1, 8, DEVICE)
    # One special token, then the patches from (1, 1) to (2, 3); frequencies 1 and 1/10.
    positions = torch.tensor([[0, 0], [1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]])
    angles = positions[..., None] * torch.tensor([1.0, 0.1])
    torch.testing.assert_close(rotations.cos, angles.cos())
    torch.testing.assert_close(rotations.sin, angles.sin())


def test_rotation_against_complex_numbers():
    rotations = grid_rotations((2, 3), 1, 8, DEVICE)
    tokens = torch.randn(2, 3, 7, 8, generator=torch.Generator().manual_seed(0))
    rotated = rotate(tokens, rotations)
    for axis in range(2):
        half = slice(4 * axis, 4 * axis + 4)
        before, after = tokens[..., half], rotated[..., half]
        phase = torch.complex(rotations.cos[:, axis], rotations.sin[:, axis])
        expected = torch.complex(before[..., :2], before[..., 2:]) * phase
        torch.testing.assert_close(torch.complex(after[..., :2], after[..., 2:]), expected)


def test_products_depend_on_relative_positions_alone():
    rotations = grid_rotations((5, 5), 0, 8, DEVICE)
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(1))
    queries = rotate(query.expand(1, 1, 25, 8), rotations)[0, 0].unflatten(0, (5, 5))
    keys = rotate(key.expand(1, 1, 25, 8), rotations)[0, 0].unflatten(0, (5, 5))
    here = (queries[0, 1] * keys[2, 0]).sum()
    there = (queries[2, 4] * keys[4, 3]).sum()
    elsewhere = (queries[0, 1] * keys[2, 2]).sum()
    torch.testing.assert_close(here, there)
    assert (here - elsewhere).abs() > 1e-3


def test_half_precision_is_rotated_in_single():
    rotations = grid_rotations((1, 37), 0, 8, DEVICE)
    tokens = torch.randn(1, 1, 37, 8, generator=torch.Generator().manual_seed(2)).bfloat16()
    rotated = rotate(tokens, rotations)
    assert rotated.dtype == torch.float32
    torch.testing.assert_close(rotated, rotate(tokens.float(), rotations))


def test_views_repeat():
    rotations = Rotations(torch.rand(2, 2, 1), torch.rand(2, 2, 1))
    repeated = rotations.repeat(3)
    assert torch.equal(repeated.cos, torch.cat([rotations.cos] * 3))
