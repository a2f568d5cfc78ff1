"""Layers of small networks as parts of Triton kernels.

Weights have a row per output, as in ``nn.Linear``. Those of matrix products come from
``converted``; others, used value by value, are the parameters themselves.
"""
# Within kernels types are Triton's.
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.kernels.triton_support import kernel, tl


def converted(weights: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return weights in another type, with rows filled up to multiples of 8.

    Loads are then aligned. They are converted together: many small kernels take longer.
    """
    rows = [F.pad(weight, (0, -weight.shape[1] % 8)) for weight in weights]
    flat = torch.cat([row.flatten() for row in rows]).to(dtype)
    parts = flat.split([row.numel() for row in rows])
    return [part.view(row.shape) for part, row in zip(parts, rows, strict=True)]


def split_parts(weights: Sequence[Tensor], parts: Sequence[Sequence[str]]) -> list[Any]:
    """Return tuples of weights, each as long as a part."""
    rest = iter(weights)
    return [tuple(itertools.islice(rest, len(part))) for part in parts]


@kernel
def load_rows(pointer, row, exists, WIDTH: tl.constexpr) -> Any:
    """Load rows of so many values in single precision."""
    column = tl.arange(0, WIDTH)[None, :]
    return tl.load(pointer + row * WIDTH + column, exists[:, None], 0.0).to(tl.float32)


@kernel
def store_rows(pointer, row, values, exists) -> Any:
    """Store rows in the pointer's type."""
    column = tl.arange(0, values.shape[1])[None, :]
    values = values.to(pointer.dtype.element_ty)
    tl.store(pointer + row * values.shape[1] + column, values, exists[:, None])


@kernel
def gelu(x) -> Any:
    """Return the Gaussian error linear unit, not its approximation by tanh."""
    return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))


@kernel
def layer_norm(x, scales, offsets, WIDTH: tl.constexpr) -> Any:
    """Normalise rows."""
    column = tl.arange(0, WIDTH)
    x -= (tl.sum(x, 1) / WIDTH)[:, None]
    x *= tl.rsqrt(tl.sum(x * x, 1) / WIDTH + 1e-5)[:, None]
    return x * tl.load(scales + column)[None, :] + tl.load(offsets + column)[None, :]


@kernel
def bias_rows(bias, ROWS: tl.constexpr, WIDTH: tl.constexpr) -> Any:
    """Return rows of a layer's bias, to which products are added."""
    return tl.zeros([ROWS, WIDTH], tl.float32) + tl.load(bias + tl.arange(0, WIDTH))[None, :]


@kernel
def add_product(total, values, weights, INPUTS: tl.constexpr, PRECISION: tl.constexpr) -> Any:
    """Add the product of values with a block of weights of a layer with so many inputs."""
    values = values.to(weights.dtype.element_ty)
    column, row = tl.arange(0, values.shape[1])[:, None], tl.arange(0, total.shape[1])[None, :]
    block = tl.load(weights + row * ((INPUTS + 7) // 8 * 8) + column)
    return tl.dot(values, block, total, input_precision=PRECISION)


@kernel
def add_part(
    total, values, weights, INPUTS: tl.constexpr, used, PRECISION: tl.constexpr, outputs=2**30
) -> Any:  # fmt: skip
    """As ``add_product``, where only ``used`` columns and ``outputs`` rows of weights exist."""
    values = values.to(weights.dtype.element_ty)
    column, row = tl.arange(0, values.shape[1])[:, None], tl.arange(0, total.shape[1])[None, :]
    exists = (column < used) & (row < outputs)
    block = tl.load(weights + row * ((INPUTS + 7) // 8 * 8) + column, exists, 0.0)
    return tl.dot(values, block, total, input_precision=PRECISION)


@kernel
def add_similarity(
    total, values, weights, INPUTS: tl.constexpr, CHANNELS: tl.constexpr, PRECISION: tl.constexpr
) -> Any:  # fmt: skip
    """As ``add_product``, with one column of weights for each ``CHANNELS`` values."""
    values = values.to(weights.dtype.element_ty)
    column, row = tl.arange(0, values.shape[1])[:, None], tl.arange(0, total.shape[1])[None, :]
    block = tl.load(weights + row * ((INPUTS + 7) // 8 * 8) + column // CHANNELS)
    return tl.dot(values, block, total, input_precision=PRECISION)


@kernel
def add_values(total, values, weights, INPUTS: tl.constexpr) -> Any:
    """Add values, one per point and tensor, times columns of weights that are not ``converted``."""
    row = weights + tl.arange(0, total.shape[1]) * INPUTS
    for i in tl.static_range(len(values)):
        total += values[i][:, None] * tl.load(row + i)[None, :]
    return total


@kernel
def dot_row(x, weights) -> Any:
    """Return the product of each row with one row of weights."""
    return tl.sum(x * tl.load(weights + tl.arange(0, x.shape[1]))[None, :], 1)
