"""Features of points in the unit cube at many resolutions (instant-ngp, Mueller et al. 2022)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_PRIMES = (1, 2654435761, 805459861)
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
        dense = (cells + 1) ** 3 <= self.entries
        # A dense level counts its corners row by row, another one hashes them.
        strides = torch.stack([torch.ones_like(cells), cells + 1, (cells + 1) ** 2], -1)
        primes = torch.tensor(_PRIMES).expand(levels, 3)
        self.register_buffer("_cells", cells.float(), persistent=False)
        self.register_buffer("_dense", dense, persistent=False)
        self.register_buffer(
            "_factors", torch.where(dense[:, None], strides, primes), persistent=False
        )
        corners = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)])
        self.register_buffer("_corners", corners, persistent=False)
        self.register_buffer("_offsets", torch.arange(levels) * self.entries, persistent=False)
        self._cells: Tensor
        self._dense: Tensor
        self._factors: Tensor
        self._corners: Tensor
        self._offsets: Tensor
        self.table = nn.Parameter(
            torch.empty(levels * self.entries, CHANNELS).uniform_(-1e-4, 1e-4)
        )

    @property
    def channels(self) -> int:
        """Features of a point."""
        return len(self._cells) * CHANNELS

    def forward(self, places: Float[Tensor, "point 3"]) -> Float[Tensor, "point channel"]:
        """Read features at places in [0, 1]^3."""
        scaled = places[:, None] * self._cells[:, None]
        base = scaled.floor().minimum(self._cells[:, None] - 1)
        share = (scaled - base)[:, :, None]
        sides = torch.where(self._corners.bool(), share, 1 - share)
        weights = sides.prod(-1)
        rows = self._rows(base.long()[:, :, None] + self._corners)
        read = self.table.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        return (read * weights[..., None]).sum(2).flatten(1)

    def _rows(
        self, corners: Int[Tensor, "point level corner 3"]
    ) -> Int[Tensor, "point level corner"]:
        x, y, z = (corners * self._factors[:, None]).unbind(-1)
        hashed = (x ^ y ^ z) & (self.entries - 1)
        return torch.where(self._dense[:, None], x + y + z, hashed) + self._offsets[:, None]
