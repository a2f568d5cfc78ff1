"""The 3D U-Net of the cost volume (Ronneberger et al. 2015, in three dimensions)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from models.kernels.triton_support import operator, use_kernels
from models.projection import working_dtype

_HAS_ONEDNN = torch.backends.mkldnn.is_available()


class Conv3d(nn.Conv3d):
    """A 3D convolution that uses oneDNN for single precision on a CPU.

    For a single volume with few channels times planes times rows (up to 20,480 in PyTorch 2.14,
    ``use_mkldnn`` in ``Convolution.cpp``) PyTorch chooses a kernel that is up to 20 times slower.
    """

    def forward(
        self,
        input: Float[Tensor, "batch channel plane row column"],  # noqa: A002
    ) -> Float[Tensor, "batch output new_plane new_row new_column"]:
        """Convolve."""
        if torch.compiler.is_compiling() and use_kernels(input):
            dtype = working_dtype(input)
            out = convolve_channels_last(
                input.to(dtype), self.weight.to(dtype), list(self.stride), list(self.padding)
            )
            return out if self.bias is None else out + self.bias.to(dtype)[:, None, None, None]
        on_cpu = input.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        single_precision = on_cpu and input.dtype == torch.float32
        if not _HAS_ONEDNN or torch.compiler.is_compiling() or not single_precision:
            return super().forward(input)
        settings = (self.padding, self.stride, self.dilation, self.groups)
        return torch.ops.aten.mkldnn_convolution(input, self.weight, self.bias, *settings)


@operator("convolve_channels_last")
def convolve_channels_last(
    volume: Tensor, weight: Tensor, stride: list[int], padding: list[int]
) -> Tensor:
    """Convolve a volume with its channels last in memory, as the result's are.

    ``torch.compile`` would reorder each layer's input and output.
    """
    layout = torch.channels_last_3d
    volume, weight = (each.contiguous(memory_format=layout) for each in (volume, weight))
    return F.conv3d(volume, weight, None, stride, padding).contiguous(memory_format=layout)


@convolve_channels_last.register_fake
def _(volume: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> Tensor:
    out = F.conv3d(volume, weight, None, stride, padding)
    return torch.empty_like(out, memory_format=torch.channels_last_3d)


class UNet3D(nn.Module):
    """Smooths a volume over several resolutions."""

    def __init__(self, widths: tuple[int, ...], outputs: int, normalised: bool = True) -> None:
        """Build the network; ``widths`` are channels at full (also the input's), half, ... size.

        Without normalisation, a crop of the volume gives the same result as the whole.
        """
        super().__init__()

        def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
            layers: list[nn.Module] = [
                Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=not normalised)
            ]
            if normalised:
                layers.append(nn.GroupNorm(4, outputs))
            return nn.Sequential(*layers, nn.GELU())

        self.first = block(widths[0], widths[0])
        steps = list(zip(widths[:-1], widths[1:], strict=True))
        self.down = nn.ModuleList(
            nn.Sequential(block(fine, coarse, stride=2), block(coarse, coarse))
            for fine, coarse in steps
        )
        self.up = nn.ModuleList(Conv3d(coarse, fine, 1) for fine, coarse in steps)
        self.merge = nn.ModuleList(block(fine, fine) for fine, _ in steps)
        self.outward = Conv3d(widths[0], outputs, 3, padding=1)

    def forward(
        self, volume: Float[Tensor, "batch channel plane row column"]
    ) -> Float[Tensor, "batch output plane row column"]:
        """Return a volume of the same size."""
        levels = [self.first(volume)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            skip = levels.pop()
            x = merge(skip + F.interpolate(up(x), size=skip.shape[-3:], mode="nearest"))
        return self.outward(x)
