"""Rotary position embedding in two dimensions.

The first half of a head's channels is rotated by the token's row, the second half by its column
(Su et al., "RoFormer", 2021, applied per axis). Within a half of D channels, channel j is paired
with channel j + D/2, and the pair turns by ``position * base ** (-2 j / D)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

BASE = 100.0


@dataclass(frozen=True)
class Rotations:
    """Cosines and sines for every token and both axes (row, column)."""

    cos: Float[Tensor, "token 2 quarter"]
    sin: Float[Tensor, "token 2 quarter"]

    def repeat(self, views: int) -> Rotations:
        """Return the rotations of as many views, one after the other."""
        return Rotations(self.cos.repeat(views, 1, 1), self.sin.repeat(views, 1, 1))


def grid_rotations(
    grid: tuple[int, int], num_special: int, head_dim: int, device: torch.device
) -> Rotations:
    """Tabulate the rotations of one view's tokens.

    Special tokens come first, at position (0, 0); the patch in row r and column c is at
    (r + 1, c + 1). The tables are a few kilobytes and made afresh in every pass: that costs
    less than it would to guard a cache against devices, compilation and autograd modes.
    """
    rows = torch.arange(1, grid[0] + 1, device=device, dtype=torch.float32)
    columns = torch.arange(1, grid[1] + 1, device=device, dtype=torch.float32)
    patches = torch.cartesian_prod(rows, columns)
    positions = torch.cat([patches.new_zeros(num_special, 2), patches])
    quarter = head_dim // 4
    exponents = torch.arange(quarter, device=device, dtype=torch.float32) / quarter
    angles = positions[..., None] * BASE**-exponents
    return Rotations(angles.cos(), angles.sin())


def rotate(
    tokens: Float[Tensor, "batch head token channel"], rotations: Rotations
) -> Float[Tensor, "batch head token channel"]:
    """Rotate queries or keys by their positions, in single precision whatever comes in."""
    # Both axes are handled at once: (axis, member of the pair, frequency).
    pairs = tokens.float().unflatten(-1, (2, 2, -1))
    first, second = pairs.unbind(-2)
    turned = (
        first * rotations.cos - second * rotations.sin,
        second * rotations.cos + first * rotations.sin,
    )
    return torch.stack(turned, -2).flatten(-3)
