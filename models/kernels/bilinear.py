"""Bilinear reading of maps as a Triton kernel: all channels of a position are read together."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.kernels.triton_support import kernel, kernel_of_sizes, operator, tl

_POINTS = 64
"""Positions per program."""


@kernel
def bilinear_taps(x, y, width, height) -> Any:
    """Return offsets and weights of the four pixels around positions in [-1, 1].

    As ``grid_sample`` with ``padding_mode="border"`` and ``align_corners=False``.
    """
    column = tl.minimum(tl.maximum(((x + 1) * width - 1) / 2, 0.0), width - 1.0)
    row = tl.minimum(tl.maximum(((y + 1) * height - 1) / 2, 0.0), height - 1.0)
    left, top = tl.floor(column), tl.floor(row)
    right_share, low_share = column - left, row - top
    x0, y0 = left.to(tl.int32), top.to(tl.int32)
    x1, y1 = tl.minimum(x0 + 1, width - 1), tl.minimum(y0 + 1, height - 1)
    offsets = (y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1)
    upper, right = 1 - low_share, right_share
    left_share = 1 - right_share
    weights = (upper * left_share, upper * right, low_share * left_share, low_share * right)
    return offsets, weights


@kernel
def read_vectors(pixels, offsets, weights, channels, CHANNELS) -> Any:
    """Interpolate ``channels`` of channels-last pixels, with zeros up to ``CHANNELS``."""
    channel = tl.arange(0, CHANNELS)[None, :]
    exists = channel < channels
    value = weights[0][:, None] * tl.load(
        pixels + offsets[0][:, None] * channels + channel, exists, 0.0
    )
    value += weights[1][:, None] * tl.load(
        pixels + offsets[1][:, None] * channels + channel, exists, 0.0
    )
    value += weights[2][:, None] * tl.load(
        pixels + offsets[2][:, None] * channels + channel, exists, 0.0
    )
    value += weights[3][:, None] * tl.load(
        pixels + offsets[3][:, None] * channels + channel, exists, 0.0
    )
    return value


@kernel
def read_scalars(values, offsets, weights) -> Any:
    """Interpolate a map of one channel."""
    value = weights[0] * tl.load(values + offsets[0]) + weights[1] * tl.load(values + offsets[1])
    return (
        value
        + weights[2] * tl.load(values + offsets[2])
        + weights[3] * tl.load(values + offsets[3])
    )


@kernel_of_sizes("count", "width", "height")
def _read_kernel(
    maps, positions, out, count, width, height, CHANNELS: tl.constexpr, POINTS: tl.constexpr
):
    image = tl.program_id(1).to(tl.int64)
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    exists = point < count
    at = positions + (image * count + point) * 2
    x, y = tl.load(at, exists, 0.0), tl.load(at + 1, exists, 0.0)
    offsets, weights = bilinear_taps(x, y, width, height)
    pixels = maps + image * width * height * CHANNELS
    value = read_vectors(pixels, offsets, weights, CHANNELS, CHANNELS)
    target = out + (image * count + point)[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    tl.store(target, value.to(out.dtype.element_ty), exists[:, None])


@operator("read_bilinear")
def read_bilinear(maps: Tensor, positions: Tensor, dtype: torch.dtype) -> Tensor:
    """Read maps ``(n, channel, height, width)`` at positions ``(n, point, 2)`` in [-1, 1].

    Returns ``(n, point, channel)`` in ``dtype``. Positions outside read the border. The number of
    channels is a power of two. Fastest if the maps are channels-last in memory.
    """
    count, channels, height, width = maps.shape
    pixels = maps.float().permute(0, 2, 3, 1).contiguous()
    points = positions.shape[1]
    out = torch.empty(count, points, channels, dtype=dtype, device=maps.device)
    _read_kernel[(-(-points // _POINTS), count)](
        pixels, positions.contiguous(), out, points, width, height, channels, _POINTS
    )
    return out


@read_bilinear.register_fake
def _(maps: Tensor, positions: Tensor, dtype: torch.dtype) -> Tensor:
    return maps.new_empty(len(maps), positions.shape[1], maps.shape[1], dtype=dtype)


def channels_last(
    maps: Float[Tensor, "batch view channel height width"],
) -> Float[Tensor, "batch view channel height width"]:
    """Return maps with all channels of a pixel beside each other in memory."""
    flat = maps.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return flat.unflatten(0, maps.shape[:2])
