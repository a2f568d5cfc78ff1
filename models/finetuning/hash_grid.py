"""Features of points in the unit cube at many resolutions (instant-ngp, Mueller et al. 2022)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_PRIMES = (1, 2654435761, 805459861)
_INT32 = 2**32
CHANNELS = 2
"""Features of a level."""


class HashGrid(nn.Module):
    """Trilinear reads of grids of growing resolution; fine ones share a table of bounded size."""

    def __init__(self, levels: int, table_bits: int, coarsest: int, finest: int) -> None:
        """Build the tables.

        Args:
            levels: Resolutions, in geometric steps.
            table_bits: Binary logarithm of the entries of a level.
            coarsest: Cells along each side at the first level.
            finest: Cells along each side at the last level.
        """
        super().__init__()
        self.entries = 2**table_bits
        steps = torch.linspace(0, 1, levels, dtype=torch.float64)
        cells = (coarsest * (finest / coarsest) ** steps).round().long()
        # A dense level counts its corners row by row, another one hashes them. Hashes only use low
        # bits, which wrap-around leaves alone: 32 bits do, and are read in half the time.
        strides = torch.stack([torch.ones_like(cells), cells + 1, (cells + 1) ** 2], -1)
        dense = (cells + 1) ** 3 <= self.entries
        wrapped = [prime - _INT32 if prime >= _INT32 // 2 else prime for prime in _PRIMES]
        factors = torch.where(dense[:, None], strides, torch.tensor(wrapped))
        offsets = torch.arange(levels) * self.entries
        self._cells: Tensor
        self._dense: Tensor
        self._factors: Tensor
        self._offsets: Tensor
        self.register_buffer("_cells", cells.float(), persistent=False)
        self.register_buffer("_dense", dense, persistent=False)
        self.register_buffer("_factors", factors.int(), persistent=False)
        self.register_buffer("_offsets", offsets.int(), persistent=False)
        start = torch.empty(levels * self.entries, CHANNELS).uniform_(-1e-4, 1e-4)
        self.table = nn.Parameter(start)

    @property
    def channels(self) -> int:
        """Features of a point."""
        return len(self._cells) * CHANNELS

    def forward(self, places: Float[Tensor, "point 3"]) -> Float[Tensor, "point channel"]:
        """Read features at places in [0, 1]^3."""
        cells = self._cells[:, None]
        scaled = places[:, None] * cells
        base = scaled.floor().minimum(cells - 1)
        share = scaled - base
        weights = _products(torch.stack([1 - share, share], -1))
        rows = self._rows(base.int())
        read = self.table.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        return (read * weights[..., None]).sum(2).flatten(1)

    def _rows(self, base: Int[Tensor, "point level 3"]) -> Int[Tensor, "point level corner"]:
        low = base * self._factors
        x, y, z = torch.stack([low, low + self._factors], -1).unbind(-2)
        x, y, z = x[..., :, None, None], y[..., None, :, None], z[..., None, None, :]
        hashed = ((x ^ y ^ z) & (self.entries - 1)).flatten(-3)
        counted = (x + y + z).flatten(-3)
        return torch.where(self._dense[:, None], counted, hashed) + self._offsets[:, None]


def _products(
    sides: Float[Tensor, "point level 3 2"],
) -> Float[Tensor, "point level corner"]:
    x, y, z = sides.unbind(-2)
    return (x[..., :, None, None] * y[..., None, :, None] * z[..., None, None, :]).flatten(-3)
