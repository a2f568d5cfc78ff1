"""The 3D U-Net of the cost volume (Ronneberger et al. 2015, in three dimensions)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from models.kernels.convolution import convolve_few
from models.kernels.triton_support import MAX_SIZE, MIN_SIZE, use_kernels
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
        activated: bool = False,
    ) -> Float[Tensor, "batch output new_plane new_row new_column"]:
        """Convolve and, if ``activated``, apply GELU."""
        dtype = working_dtype(input)
        few = MIN_SIZE <= self.in_channels <= MAX_SIZE and self.out_channels <= MAX_SIZE
        # The kernel is for tensor cores, which have no single precision.
        if few and self.in_channels % 8 == 0 and dtype.itemsize == 2 and use_kernels(input):
            return self._convolve_few(input.to(dtype), activated)
        out = self._convolve(input)
        return F.gelu(out) if activated else out

    def _convolve_few(
        self, volume: Float[Tensor, "batch channel plane row column"], activated: bool
    ) -> Float[Tensor, "batch output new_plane new_row new_column"]:
        if self.kernel_size[0] == 3:
            return convolve_few(volume, self.weight, self.bias, self.stride[0], activated)
        out = F.linear(volume.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)
        return F.gelu(out) if activated else out

    def _convolve(
        self, volume: Float[Tensor, "batch channel plane row column"]
    ) -> Float[Tensor, "batch output new_plane new_row new_column"]:
        on_cpu = volume.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        single_precision = on_cpu and volume.dtype == torch.float32
        if not _HAS_ONEDNN or torch.compiler.is_compiling() or not single_precision:
            return super().forward(volume)
        settings = (self.padding, self.stride, self.dilation, self.groups)
        return torch.ops.aten.mkldnn_convolution(volume, self.weight, self.bias, *settings)


class ConvolutionBlock(nn.Sequential):
    """A convolution, group normalisation unless it has a bias, and GELU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, normalised: bool = True) -> None:
        layers: list[nn.Module] = [
            Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=not normalised)
        ]
        if normalised:
            layers.append(nn.GroupNorm(4, outputs))
        super().__init__(*layers, nn.GELU())

    def forward(
        self,
        input: Float[Tensor, "batch channel plane row column"],  # noqa: A002
    ) -> Float[Tensor, "batch output new_plane new_row new_column"]:
        """Return the activated convolution."""
        convolution, *rest = self
        if len(rest) > 1:
            return super().forward(input)
        return convolution(input, activated=True)


class UNet3D(nn.Module):
    """Smooths a volume over several resolutions."""

    def __init__(self, widths: tuple[int, ...], outputs: int, normalised: bool = True) -> None:
        """Build the network; ``widths`` are channels at full (also the input's), half, ... size.

        Without normalisation, a crop of the volume gives the same result as the whole.
        """
        super().__init__()

        def block(inputs: int, outputs: int, stride: int = 1) -> ConvolutionBlock:
            return ConvolutionBlock(inputs, outputs, stride, normalised)

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
