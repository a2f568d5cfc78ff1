"""Convolutions of volumes, fast on a CPU, too."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

_HAS_ONEDNN = torch.backends.mkldnn.is_available()


class Conv3d(nn.Conv3d):
    """A convolution of volumes.

    On a CPU PyTorch leaves single volumes of few channels times planes times rows (20,480 or less
    in 2.14, ``use_mkldnn`` in its ``Convolution.cpp``) to a kernel that takes up to twenty times as
    long as oneDNN's, whatever their width. Here oneDNN is asked for them, too.
    """

    def forward(
        self,
        input: Float[Tensor, "batch channel plane row column"],  # noqa: A002
    ) -> Float[Tensor, "batch output new_plane new_row new_column"]:
        """Convolve."""
        if not _HAS_ONEDNN or torch.compiler.is_compiling() or not _in_single_precision(input):
            return super().forward(input)
        how = (self.padding, self.stride, self.dilation, self.groups)
        return torch.ops.aten.mkldnn_convolution(input, self.weight, self.bias, *how)


def _in_single_precision(x: Tensor) -> bool:
    on_cpu = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return on_cpu and x.dtype == torch.float32
