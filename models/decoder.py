"""The decoder: composited colours and features of neighbouring bundles -> corrected colours.

The field sees one ray at a time and has no information where no source view looks. A small 2D
network over the whole image, as in GDB-NeRF (CVPR 2025), sharpens it and fills such regions.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn


class Decoder(nn.Module):
    """A U-Net (Ronneberger et al. 2015) without normalisation, so that windows agree with images.

    Its output is added to colours and initialised to zero.
    """

    def __init__(self, widths: tuple[int, ...], inputs: int, outputs: int) -> None:
        """Build the network; ``widths`` are channels at full, half, ... size."""
        super().__init__()
        self.inward = nn.Conv2d(inputs, widths[0], 3, padding=1)
        steps = list(zip(widths[:-1], widths[1:], strict=True))
        self.fine = nn.ModuleList(_Block(width) for width in widths[:-1])
        self.down = nn.ModuleList(
            nn.Conv2d(fine, coarse, 4, stride=2, padding=1) for fine, coarse in steps
        )
        self.deepest = nn.Sequential(_Block(widths[-1]), _Block(widths[-1]))
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in steps)
        self.merge = nn.ModuleList(_Block(fine) for fine, _ in steps)
        self.outward = nn.Conv2d(widths[0], outputs, 3, padding=1)
        for parameter in self.outward.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, x: Float[Tensor, "batch channel row column"]
    ) -> Float[Tensor, "batch output row column"]:
        """Return the correction for maps of any size."""
        rows, columns = x.shape[-2:]
        multiple = 2 ** len(self.down)
        padding = (0, -columns % multiple, 0, -rows % multiple)
        x = self.inward(F.pad(x, padding, mode="replicate"))
        skips = []
        for block, down in zip(self.fine, self.down, strict=True):
            skips.append(block(x))
            x = down(skips[-1])
        x = self.deepest(x)
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            x = merge(skips.pop() + F.interpolate(up(x), scale_factor=2.0, mode="nearest"))
        return self.outward(x)[..., :rows, :columns]


class _Block(nn.Module):
    """Two 3x3 convolutions with a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "n width h w"]) -> Float[Tensor, "n width h w"]:
        """Add the block's output to its input."""
        return x + self.second(F.gelu(self.first(F.gelu(x))))
