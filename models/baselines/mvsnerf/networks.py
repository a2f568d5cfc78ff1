"""The convolutions of MVSNeRF: feature network and 3D U-Net, both after MVSNet.

Modules are named as in the public definition, so that its weights fit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

FEATURES, VOLUME_CHANNELS = 32, 8
"""Channels of the feature maps and of the encoding volume."""
_SLOPE = 0.01
"""Of the leaky ReLU."""


class ActivatedNorm(nn.Module):
    """In-place activated batch norm (Rota Bulo et al., CVPR 2018), which MVSNeRF was trained with.

    The scale is ``|weight| + eps``. Statistics are those of the input, in tests too: MVSNeRF's
    networks are used in training mode throughout.
    """

    _EPS = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Float[Tensor, "batch channel *size"]
    ) -> Float[Tensor, "batch channel *size"]:
        """Normalise each channel over everything else, then apply the leaky ReLU."""
        scale = self.weight.abs() + self._EPS
        x = F.batch_norm(x, None, None, scale, self.bias, training=True, eps=self._EPS)
        return F.leaky_relu(x, _SLOPE)


class Conv2d(nn.Module):
    """A convolution that keeps the size, or halves it, with its norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = ActivatedNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Apply convolution, norm and activation."""
        return self.bn(self.conv(x))


class Conv3d(nn.Module):
    """A convolution of volumes that keeps the size, or halves it, with its norm."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn = ActivatedNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Apply convolution, norm and activation."""
        return self.bn(self.conv(x))


def _double_size(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.ConvTranspose3d(inputs, outputs, 3, 2, padding=1, output_padding=1, bias=False)
    return nn.Sequential(conv, ActivatedNorm(outputs))


class FeatureNet(nn.Module):
    """Features of images at a quarter of their size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Sequential(Conv2d(3, 8), Conv2d(8, 8))
        self.conv1 = nn.Sequential(Conv2d(8, 16, 5, 2), Conv2d(16, 16), Conv2d(16, 16))
        self.conv2 = nn.Sequential(Conv2d(16, 32, 5, 2), Conv2d(32, 32), Conv2d(32, 32))
        self.toplayer = nn.Conv2d(32, FEATURES, 1)

    def forward(
        self, images: Float[Tensor, "view 3 height width"]
    ) -> Float[Tensor, "view channel rows columns"]:
        """Encode the images of one scene: norms take their statistics over all of them."""
        return self.toplayer(self.conv2(self.conv1(self.conv0(images))))


class VolumeNet(nn.Module):
    """The 3D U-Net between cost volume and encoding volume; sizes must be multiples of 8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv0 = Conv3d(inputs, 8)
        self.conv1, self.conv2 = Conv3d(8, 16, 2), Conv3d(16, 16)
        self.conv3, self.conv4 = Conv3d(16, 32, 2), Conv3d(32, 32)
        self.conv5, self.conv6 = Conv3d(32, 64, 2), Conv3d(64, 64)
        self.conv7, self.conv9 = _double_size(64, 32), _double_size(32, 16)
        self.conv11 = _double_size(16, VOLUME_CHANNELS)

    def forward(
        self, volume: Float[Tensor, "1 inputs plane row column"]
    ) -> Float[Tensor, "1 channel plane row column"]:
        """Encode the cost volume of one scene."""
        full = self.conv0(volume)
        half = self.conv2(self.conv1(full))
        quarter = self.conv4(self.conv3(half))
        x = quarter + self.conv7(self.conv6(self.conv5(quarter)))
        return full + self.conv11(half + self.conv9(x))
