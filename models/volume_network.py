"""A small 3D U-Net: what ties neighbouring rays together."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn


class UNet3D(nn.Module):
    """Smooth a volume over three resolutions (Ronneberger et al. 2015, in three dimensions)."""

    def __init__(self, inputs: int, widths: tuple[int, ...], outputs: int) -> None:
        """Build the network.

        Args:
            inputs: Channels of the volume.
            widths: Channels at full size, half size and so on; multiples of 8.
            outputs: Channels that come out.
        """
        super().__init__()
        self.inward = nn.Conv3d(inputs, widths[0], 1)
        self.first = _block(widths[0], widths[0])
        steps = list(zip(widths[:-1], widths[1:], strict=True))
        self.down = nn.ModuleList(
            nn.Sequential(_block(fine, coarse, stride=2), _block(coarse, coarse))
            for fine, coarse in steps
        )
        self.up = nn.ModuleList(nn.Conv3d(coarse, fine, 1) for fine, coarse in steps)
        self.merge = nn.ModuleList(_block(fine, fine) for fine, _ in steps)
        self.outward = nn.Conv3d(widths[0], outputs, 3, padding=1)

    def forward(
        self, volume: Float[Tensor, "batch channel plane row column"]
    ) -> Float[Tensor, "batch output plane row column"]:
        """Return a volume of the same size."""
        levels = [self.first(self.inward(volume))]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            skip = levels.pop()
            x = merge(skip + F.interpolate(up(x), size=skip.shape[-3:], mode="nearest"))
        return self.outward(x)


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(4, outputs),
        nn.GELU(),
    )
