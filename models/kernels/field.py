"""The radiance field's networks as parts of a Triton kernel."""
# Within kernels types are Triton's.
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false

from __future__ import annotations

from typing import Any

from models.kernels.layers import (
    add_part,
    add_product,
    add_similarity,
    add_values,
    bias_rows,
    gelu,
    layer_norm,
)
from models.kernels.triton_support import kernel, tl


@kernel
def add_statistics(
    total, statistics, weights, matrix, CONTEXTS: tl.constexpr, INPUTS: tl.constexpr,
    GROUPS: tl.constexpr, PRECISION: tl.constexpr,
) -> Any:  # fmt: skip
    """Add the products of statistics in the order of ``RadianceField._statistics``."""
    mean, variance, color_mean, color_variance, similarity, count, context = statistics
    channels: tl.constexpr = mean.shape[1]
    column: tl.constexpr = 2 * channels
    total = add_product(total, mean, matrix, INPUTS, PRECISION)
    total = add_product(total, variance, matrix + channels, INPUTS, PRECISION)
    matrix += column
    total = add_part(total, color_mean, matrix, INPUTS, 3, PRECISION)
    total = add_part(total, color_variance, matrix + 3, INPUTS, 3, PRECISION)
    matrix += 6
    total = add_similarity(total, similarity, matrix, INPUTS, channels // GROUPS, PRECISION)
    total = add_values(total, (count,), weights + column + 6 + GROUPS, INPUTS)
    matrix += GROUPS + 1
    return add_part(total, context, matrix, INPUTS, CONTEXTS, PRECISION)


@kernel
def _head(
    points, attended, weights, bias, first, SIZE: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """Return one head of self-attention, whose channels begin with ``first``."""
    rows: tl.constexpr = points.shape[0]
    width: tl.constexpr = points.shape[1]
    weights, bias = weights + first * width, bias + first
    q = add_product(bias_rows(bias, rows, SIZE), points, weights, width, PRECISION)
    weights, bias = weights + width * width, bias + width
    k = add_product(bias_rows(bias, rows, SIZE), points, weights, width, PRECISION)
    weights, bias = weights + width * width, bias + width
    v = add_product(bias_rows(bias, rows, SIZE), points, weights, width, PRECISION)
    q, k = (q * SIZE**-0.5).to(weights.dtype.element_ty), k.to(weights.dtype.element_ty)
    logits = tl.where(attended, tl.dot(q, tl.trans(k), input_precision=PRECISION), -1e30)
    shares = tl.exp(logits - tl.max(logits, 1)[:, None])
    shares /= tl.sum(shares, 1)[:, None]
    shares, v = shares.to(weights.dtype.element_ty), v.to(weights.dtype.element_ty)
    return tl.dot(shares, v, input_precision=PRECISION)


@kernel
def attend(
    points, positions, attended, weights, mlp_weights, HEADS: tl.constexpr,
    FREQUENCIES: tl.constexpr, PRECISION: tl.constexpr,
) -> Any:  # fmt: skip
    """Apply ``RayAttention``; ``attended`` marks pairs of samples of the same ray."""
    position, scale1, offset1, qkv, qkv_bias, proj, proj_bias = weights
    scale2, offset2, inward, inward_bias, outward, outward_bias = mlp_weights
    rows: tl.constexpr = points.shape[0]
    width: tl.constexpr = points.shape[1]
    size: tl.constexpr = width // HEADS
    sine, cosine = tl.sin(positions * 3.141592653589793), tl.cos(positions * 3.141592653589793)
    for octave in tl.static_range(FREQUENCIES):
        points = add_values(points, (sine,), position + octave, 2 * FREQUENCIES)
        points = add_values(points, (cosine,), position + FREQUENCIES + octave, 2 * FREQUENCIES)
        # Sine and cosine of twice the angle.
        sine, cosine = 2 * sine * cosine, 1 - 2 * sine * sine
    normed = layer_norm(points, scale1, offset1, width)
    points += bias_rows(proj_bias, rows, width)
    for head in tl.static_range(HEADS):
        mixed = _head(normed, attended, qkv, qkv_bias, head * size, size, PRECISION)
        points = add_product(points, mixed, proj + head * size, width, PRECISION)
    normed = layer_norm(points, scale2, offset2, width)
    points += bias_rows(outward_bias, rows, width)
    for half in tl.static_range(2):
        hidden = bias_rows(inward_bias + half * width, rows, width)
        hidden = add_product(hidden, normed, inward + half * width * width, width, PRECISION)
        points = add_product(points, gelu(hidden), outward + half * width, 2 * width, PRECISION)
    return points


@kernel
def regress(
    points, weights, VIEW_WIDTH: tl.constexpr, PIXELS: tl.constexpr, LANES: tl.constexpr,
    PRECISION: tl.constexpr,
) -> Any:  # fmt: skip
    """Return regressed colours, and the logit of their share in the blend."""
    inward, inward_bias, outward, outward_bias = weights
    rows: tl.constexpr = points.shape[0]
    hidden = bias_rows(inward_bias, rows, VIEW_WIDTH)
    hidden = gelu(add_product(hidden, points, inward, points.shape[1], PRECISION))
    lane = tl.arange(0, LANES)
    values = tl.zeros([rows, LANES], tl.float32)
    values += tl.load(outward_bias + lane, lane <= 3 * PIXELS, 0.0)[None, :]
    outputs: tl.constexpr = 3 * PIXELS + 1
    values = add_part(values, hidden, outward, VIEW_WIDTH, VIEW_WIDTH, PRECISION, outputs)
    logit = tl.sum(tl.where(lane[None, :] == 3 * PIXELS, values, 0.0), 1)
    return tl.sigmoid(values), logit


@kernel
def online_softmax(score, seen, largest, total) -> Any:
    """Return the new maximum and total, the factor of earlier terms, the weight of this one."""
    score = tl.where(seen > 0, score, -1e30)
    new = tl.maximum(largest, score)
    factor, weight = tl.exp(largest - new), seen * tl.exp(score - new)
    return new, total * factor + weight, factor[:, None], weight[:, None]
