"""What one scene adds to the general model: density and colour of its own, and where to sample.

All of it says nothing at the start: the first rendering is the general model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from models.finetuning.hash_grid import HashGrid
from models.finetuning.warp import SceneWarp
from models.ray_attention import mlp
from models.sampling import DepthPlanes
from utils.rays import Rays

_MAX_OPINION = 12.0
"""Largest factor, as an exponent, that the guide puts on a plane's weight."""
_HARMONICS = 9


@dataclass(frozen=True)
class ResidualConfig:
    """The scene's own density and colour."""

    residual: Literal["hash", "none"] = "none"
    """none: only the general model's weights and the feature maps are tuned; hash: a grid of
    features adds to the field's density and colour, another one to the choice of samples: no gain
    on any of the four scenes that it was measured on"""
    residual_levels: int = 12
    """resolutions of the grid"""
    residual_bits: int = 19
    """binary logarithm of the entries of each resolution"""
    residual_coarsest: int = 16
    """cells along each side at the coarsest resolution"""
    residual_finest: int = 1024
    """cells along each side at the finest resolution"""
    residual_width: int = 64
    """hidden channels of the small network behind the grid"""
    guide_cells: int = 128
    """cells along each side of the grid that says where to sample"""

    def __post_init__(self) -> None:
        """Refuse what is no grid."""
        if not 1 <= self.residual_levels <= 32 or not 4 <= self.residual_bits <= 24:
            raise ValueError(
                f"residual_levels={self.residual_levels} must lie in [1, 32] and "
                f"residual_bits={self.residual_bits} in [4, 24]"
            )
        if not 2 <= self.residual_coarsest <= self.residual_finest or self.guide_cells < 2:
            raise ValueError(
                f"residual_coarsest={self.residual_coarsest} must be at least 2 and no more than "
                f"residual_finest={self.residual_finest}; guide_cells={self.guide_cells} at least 2"
            )


@dataclass(frozen=True)
class ResidualSamples:
    """The field's samples, corrected."""

    densities: Float[Tensor, "batch ray sample"]
    colors: Float[Tensor, "batch ray sample 3"]
    own_colors: Float[Tensor, "batch ray sample 3"]
    """What the scene alone would show, without any source view."""


class SceneResidual(nn.Module):
    """A hash grid with a small network, and a dense grid of opinions on where surfaces are."""

    def __init__(self, config: ResidualConfig, warp: SceneWarp) -> None:
        super().__init__()
        self.warp = warp
        self.grid = HashGrid(
            config.residual_levels,
            config.residual_bits,
            config.residual_coarsest,
            config.residual_finest,
        )
        width = config.residual_width
        self.geometry = mlp(self.grid.channels, width, width)
        self.correction = nn.Linear(width, 2)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)
        self.color = mlp(width + _HARMONICS, width, 3)
        cells = config.guide_cells
        self.opinions = nn.Parameter(torch.zeros(1, 1, cells, cells, cells))

    def guide(
        self, rays: Rays, planes: DepthPlanes, weights: Float[Tensor, "batch ray plane"]
    ) -> Float[Tensor, "batch ray plane"]:
        """Sharpen a ray's plane weights by what the scene has learnt about its own surfaces."""
        centers = planes.centers()[:, None].expand_as(weights)
        grid = (self.warp(rays.at(centers)) * 2 - 1)[:, None]
        opinions = self.opinions.expand(len(weights), -1, -1, -1, -1)
        read = F.grid_sample(opinions, grid, padding_mode="border", align_corners=False)[:, 0, 0]
        return weights * read.clamp(-_MAX_OPINION, _MAX_OPINION).exp()

    def forward(
        self,
        points: Float[Tensor, "batch ray sample 3"],
        viewdirs: Float[Tensor, "batch ray 3"],
        densities: Float[Tensor, "batch ray sample"],
        colors: Float[Tensor, "batch ray sample 3"],
    ) -> ResidualSamples:
        """Correct the field's densities (before scaling) and colours."""
        shape = points.shape[:-1]
        hidden = F.gelu(self.geometry(self.grid(self.warp(points).flatten(0, -2))))
        shift, share = self.correction(hidden).float().unflatten(0, shape).unbind(-1)
        directions = _harmonics(viewdirs)[..., None, :].expand(*shape, -1).flatten(0, -2)
        own = self.color(torch.cat([hidden, directions.to(hidden.dtype)], -1))
        own = torch.sigmoid(own.float()).unflatten(0, shape)
        return ResidualSamples(
            densities=F.softplus(_inverse_softplus(densities) + shift),
            colors=colors + share[..., None] * (own - colors),
            own_colors=own,
        )


def _inverse_softplus(values: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    values = values.clamp_min(1e-6)
    return values + torch.log(-torch.expm1(-values))


def _harmonics(viewdirs: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 9"]:
    """Return real spherical harmonics up to degree 2, up to constant factors."""
    x, y, z = viewdirs.unbind(-1)
    first = [torch.ones_like(x), x, y, z]
    return torch.stack([*first, x * y, y * z, x * z, x * x - y * y, 3 * z * z - 1], -1)
