"""The networks of MVSNeRF: image features and 3D U-Net, both after MVSNet, and the radiance MLP.

Modules are named as in the official code, so that its weights load.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

FEATURES, VOLUME_CHANNELS = 32, 8
"""Channels of the feature maps and of the encoding volume."""
_NEGATIVE_SLOPE = 0.01
_WIDTH, _FREQUENCIES = 128, 10
_SKIP = 5
"""Index of the MLP's layer that reads the position again."""


class ActivatedNorm(nn.Module):
    """In-place activated batch norm (Rota Bulo et al., CVPR 2018) as MVSNeRF was trained with.

    The scale is ``|weight| + eps``. Statistics are always those of the input: MVSNeRF keeps its
    networks in training mode.
    """

    _EPS = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Float[Tensor, "batch channel *size"]
    ) -> Float[Tensor, "batch channel *size"]:
        """Normalise each channel over all other axes, then apply the leaky ReLU."""
        scale = self.weight.abs() + self._EPS
        x = F.batch_norm(x, None, None, scale, self.bias, training=True, eps=self._EPS)
        return F.leaky_relu(x, _NEGATIVE_SLOPE)


def _conv2d(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=ActivatedNorm(outputs)))


def _conv3d(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=ActivatedNorm(outputs)))


def _upsample(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.ConvTranspose3d(inputs, outputs, 3, 2, padding=1, output_padding=1, bias=False)
    return nn.Sequential(conv, ActivatedNorm(outputs))


class FeatureNet(nn.Module):
    """Features of images at a quarter of their size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Sequential(_conv2d(3, 8), _conv2d(8, 8))
        self.conv1 = nn.Sequential(_conv2d(8, 16, 5, 2), _conv2d(16, 16), _conv2d(16, 16))
        self.conv2 = nn.Sequential(_conv2d(16, 32, 5, 2), _conv2d(32, 32), _conv2d(32, 32))
        self.toplayer = nn.Conv2d(32, FEATURES, 1)

    def forward(
        self, images: Float[Tensor, "view 3 height width"]
    ) -> Float[Tensor, "view channel rows columns"]:
        """Encode the images of one scene: norms take their statistics over all of them."""
        return self.toplayer(self.conv2(self.conv1(self.conv0(images))))


class VolumeNet(nn.Module):
    """The 3D U-Net from cost volume to encoding volume; sizes must be multiples of 8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv0 = _conv3d(inputs, 8)
        self.conv1, self.conv2 = _conv3d(8, 16, 2), _conv3d(16, 16)
        self.conv3, self.conv4 = _conv3d(16, 32, 2), _conv3d(32, 32)
        self.conv5, self.conv6 = _conv3d(32, 64, 2), _conv3d(64, 64)
        self.conv7, self.conv9 = _upsample(64, 32), _upsample(32, 16)
        self.conv11 = _upsample(16, VOLUME_CHANNELS)

    def forward(
        self, volume: Float[Tensor, "1 inputs plane row column"]
    ) -> Float[Tensor, "1 channel plane row column"]:
        """Encode the cost volume of one scene."""
        full = self.conv0(volume)
        half = self.conv2(self.conv1(full))
        quarter = self.conv4(self.conv3(half))
        x = quarter + self.conv7(self.conv6(self.conv5(quarter)))
        return full + self.conv11(half + self.conv9(x))


class RadianceMLP(nn.Module):
    """Six layers, each multiplied by a linear function of the features, then two heads."""

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
        heads = (self.feature_linear, self.alpha_linear, self.rgb_linear)
        for layer in (*self.pts_linears, *self.views_linears, *heads):
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        positions: Float[Tensor, "*batch 3"],
        features: Float[Tensor, "*batch channel"],
        directions: Float[Tensor, "*batch 3"],
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 3"]]:
        """Return densities (at least 0) and colours.

        Positions in the encoding volume are in [0, 1]; viewing directions are unit vectors in the
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
    """Return positions, then sines, then cosines of positions times 1, 2, 4, ... 512."""
    scaled = torch.cat([positions * 2**power for power in range(_FREQUENCIES)], -1)
    return torch.cat([positions, scaled.sin(), scaled.cos()], -1)
