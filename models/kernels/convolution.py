"""3D convolutions of few channels as a Triton kernel.

Libraries compute at least 32 or 64 outputs at a time, of which few are used here. Channels are last
in memory; bias and activation are part of the kernel.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from models.kernels.layers import gelu
from models.kernels.triton_support import kernel_of_sizes, operator, tl, triton

_POSITIONS, _WARPS = 128, 4
"""Outputs and warps per program."""
_LAYOUT = torch.channels_last_3d


@kernel_of_sizes("planes", "rows", "columns", "out_planes", "out_rows", "out_columns")
def _convolve_kernel(
    volume, weights, bias, out, planes, rows, columns, out_planes, out_rows, out_columns,
    CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, STRIDE: tl.constexpr, TAPS: tl.constexpr,
    INPUTS_UP: tl.constexpr, OUTPUTS_UP: tl.constexpr, BIAS: tl.constexpr, GELU: tl.constexpr,
    POSITIONS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1).to(tl.int64)
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    x, y = position % out_columns, position // out_columns % out_rows
    z = position // (out_columns * out_rows)
    volume += batch * planes * rows * columns * CHANNELS
    # TAPS neighbours along a row are read together: their channels follow each other.
    inputs: tl.constexpr = TAPS * CHANNELS
    channel, output = tl.arange(0, INPUTS_UP), tl.arange(0, OUTPUTS_UP)
    total = tl.zeros([POSITIONS, OUTPUTS_UP], tl.float32)
    if BIAS:
        total += tl.load(bias + output, output < OUTPUTS, 0.0)[None, :]
    used = (channel[:, None] < inputs) & (output[None, :] < OUTPUTS)
    block = weights + output[None, :] * (27 * CHANNELS) + channel[:, None]
    for step in range(27 // TAPS):
        first = step * TAPS
        from_z, from_y = z * STRIDE + first // 9 - 1, y * STRIDE + first // 3 % 3 - 1
        from_x = x * STRIDE + first % 3 - 1
        row = (from_z >= 0) & (from_z < planes) & (from_y >= 0) & (from_y < rows)
        column = from_x[:, None] + (channel // CHANNELS)[None, :]
        inside = row[:, None] & (column >= 0) & (column < columns) & (channel < inputs)[None, :]
        start = ((from_z * rows + from_y) * columns + from_x) * CHANNELS
        values = tl.load(volume + start[:, None] + channel[None, :], inside, 0.0)
        total = tl.dot(values, tl.load(block, used, 0.0), total, input_precision=PRECISION)
        block += inputs
    if GELU:
        total = gelu(total)
    count = out_planes * out_rows * out_columns
    target = out + (batch * count + position)[:, None] * OUTPUTS + output[None, :]
    exists = (position < count)[:, None] & (output < OUTPUTS)[None, :]
    tl.store(target, total.to(out.dtype.element_ty), exists)


@operator("convolve_few")
def _convolve(
    volume: Tensor, weight: Tensor, bias: Tensor | None, stride: int, activated: bool
) -> Tensor:
    volume, out = volume.contiguous(memory_format=_LAYOUT), _output(volume, weight, stride)
    channels, outputs = weight.shape[1], len(weight)
    taps = 3 if channels <= 16 else 1
    positions = out.shape[2] * out.shape[3] * out.shape[4]
    _convolve_kernel[(-(-positions // _POSITIONS), len(volume))](
        *(volume, weight, volume if bias is None else bias, out, *volume.shape[2:]),
        *(*out.shape[2:], channels, outputs, stride, taps),
        *(triton.next_power_of_2(taps * channels), max(triton.next_power_of_2(outputs), 16)),
        *(bias is not None, activated, _POSITIONS, "ieee"),
        num_warps=_WARPS,
    )
    return out


@_convolve.register_fake
def _(volume: Tensor, weight: Tensor, bias: Tensor | None, stride: int, activated: bool) -> Tensor:
    return _output(volume, weight, stride)


def _output(volume: Tensor, weight: Tensor, stride: int) -> Tensor:
    sizes = (-(-size // stride) for size in volume.shape[2:])
    shape = (len(volume), len(weight), *sizes)
    return torch.empty(shape, dtype=volume.dtype, device=volume.device, memory_format=_LAYOUT)


def convolve_few(
    volume: Float[Tensor, "batch channel plane row column"],
    weight: Float[Tensor, "output channel 3 3 3"],
    bias: Float[Tensor, " output"] | None,
    stride: int = 1,
    activated: bool = False,
) -> Float[Tensor, "batch output new_plane new_row new_column"]:
    """Convolve with a padding of 1 and, if ``activated``, apply GELU.

    Returns the volume's type. Channels are a multiple of 8, from
    ``MIN_SIZE`` to ``MAX_SIZE``; outputs at most as many.
    """
    weight = weight.to(volume.dtype, memory_format=_LAYOUT)
    return _convolve(volume, weight, bias, stride, activated)
