"""The MLP of MVSNeRF: density and colour of points from volume features and source colours."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.baselines.mvsnerf.networks import VOLUME_CHANNELS

_WIDTH, _FREQUENCIES = 128, 10
_SKIP = 5
"""Layer that reads the position again."""


class RadianceMLP(nn.Module):
    """Six layers, each of them scaled by a linear function of the features, then two heads.

    Modules are named as in the public definition.
    """

    def __init__(self, num_views: int) -> None:
        super().__init__()
        position = 3 * (1 + 2 * _FREQUENCIES)
        inputs = [position, *[_WIDTH] * 4, _WIDTH + position]
        self.pts_linears = nn.ModuleList(nn.Linear(size, _WIDTH) for size in inputs)
        self.pts_bias = nn.Linear(VOLUME_CHANNELS + 4 * num_views, _WIDTH)
        self.feature_linear = nn.Linear(_WIDTH, _WIDTH)
        self.alpha_linear = nn.Linear(_WIDTH, 1)
        self.views_linears = nn.ModuleList([nn.Linear(_WIDTH + 3, _WIDTH // 2)])
        self.rgb_linear = nn.Linear(_WIDTH // 2, 3)
        for layer in (*self.pts_linears, *self.views_linears, self.feature_linear):
            _initialise(layer)
        _initialise(self.alpha_linear)
        _initialise(self.rgb_linear)

    def forward(
        self,
        positions: Float[Tensor, "*batch 3"],
        features: Float[Tensor, "*batch channel"],
        directions: Float[Tensor, "*batch 3"],
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 3"]]:
        """Return densities (at least 0) and colours.

        Positions are those in the encoding volume, from 0 to 1; viewing directions are unit, in the
        frame of the first source.
        """
        encoded = encode_positions(positions)
        scale, hidden = self.pts_bias(features), encoded
        for number, layer in enumerate(self.pts_linears):
            if number == _SKIP:
                hidden = torch.cat([encoded, hidden], -1)
            hidden = torch.relu(layer(hidden) * scale)
        densities = torch.relu(self.alpha_linear(hidden))[..., 0]
        hidden = torch.cat([self.feature_linear(hidden), directions], -1)
        return densities, torch.sigmoid(self.rgb_linear(torch.relu(self.views_linears[0](hidden))))


def encode_positions(positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 63"]:
    """Return the positions, then sines, then cosines of them times 1, 2, 4, ... 512."""
    scaled = torch.cat([positions * 2**power for power in range(_FREQUENCIES)], -1)
    return torch.cat([positions, scaled.sin(), scaled.cos()], -1)


def _initialise(layer: nn.Module) -> None:
    assert isinstance(layer, nn.Linear)
    nn.init.kaiming_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
