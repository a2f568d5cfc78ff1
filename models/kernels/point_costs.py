"""The embedded matching costs of ray points as one Triton kernel.

What ``PointCosts`` of ``models.cost_volume`` computes in PyTorch: project each point into every
source view, read the views' maps there, take statistics over the views, apply the linear layers.
Only the result is written to memory.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.kernels.bilinear import bilinear_taps, read_vectors
from models.kernels.geometry import (
    behind_surface,
    channel_similarity,
    existing_views,
    inside_image,
    load_vector,
    project,
    projections,
    squashed,
    view_means,
)
from models.kernels.layers import (
    add_part,
    add_product,
    add_similarity,
    add_values,
    bias_rows,
    converted,
    gelu,
)
from models.kernels.triton_support import MIN_SIZE, kernel, kernel_of_sizes, operator, tl
from models.projection import MIN_DEPTH, SceneFeatures, working_dtype
from models.ray_sampling import DepthPlanes
from utils.cameras import Rays, full_precision

_POINTS, _WARPS = 64, 2
"""Points and warps per program."""


@kernel
def _first_layer(
    total, statistics, values, weights, matrices, contexts,
    INPUTS: tl.constexpr, GROUPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the products of a point's costs, in the order of ``cost_volume.matching_costs``."""
    mean, variance, color_mean, color_variance, similarity, context = statistics
    channels: tl.constexpr = mean.shape[1]
    total = add_product(total, mean, matrices, INPUTS, PRECISION)
    total = add_product(total, variance, matrices + channels, INPUTS, PRECISION)
    column: tl.constexpr = 2 * channels
    total = add_part(total, color_mean, matrices + column, INPUTS, 3, PRECISION)
    total = add_part(total, color_variance, matrices + column + 3, INPUTS, 3, PRECISION)
    total = add_similarity(
        total, similarity, matrices + column + 6, INPUTS, channels // GROUPS, PRECISION
    )
    total = add_values(total, values, weights + column + 6 + GROUPS, INPUTS)
    given: tl.constexpr = column + 6 + GROUPS + 5
    return add_part(total, context, matrices + given, INPUTS, contexts, PRECISION)


@kernel_of_sizes("rays", "map_width", "map_height", "prior_width", "prior_height")
def _embed_kernel(
    maps, colors, prior, reliability, view_mask, projections, near_far, origins, directions,
    depths, context, inward, inward_matrix, inward_bias, outward_matrix, outward_bias, out, rays,
    map_width, map_height, prior_width, prior_height, scale_x, scale_y, planes,
    VIEWS: tl.constexpr, SAMPLES: tl.constexpr, CHANNELS: tl.constexpr, WIDTH: tl.constexpr,
    GROUPS: tl.constexpr, CONTEXTS: tl.constexpr, LINDISP: tl.constexpr, MIN_DEPTH: tl.constexpr,
    PAD: tl.constexpr, FEW: tl.constexpr, POINTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1).to(tl.int64)
    count = rays * SAMPLES
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    exists = point < count
    ray, sample = point // SAMPLES, point % SAMPLES
    t = tl.load(depths + batch * count + point, exists, 1.0)
    origin = load_vector(origins + (batch * rays + ray) * 3, exists)
    direction = load_vector(directions + (batch * rays + ray) * 3, exists)
    near, far = tl.load(near_far + 2 * batch), tl.load(near_far + 2 * batch + 1)
    sums = tl.zeros([POINTS, CHANNELS], tl.float32)
    squares = tl.zeros([POINTS, CHANNELS], tl.float32)
    color_sums = tl.zeros([POINTS, FEW], tl.float32)
    color_squares = tl.zeros([POINTS, FEW], tl.float32)
    seen = tl.zeros([POINTS], tl.float32)
    residuals, confidences, nearest = seen, seen, seen + 1
    for view in range(VIEWS):
        image = batch * VIEWS + view
        x, y, z = project(projections + image * 12, origin, direction, t, scale_x, scale_y)
        x, y, valid = inside_image(x, y, z, PAD * scale_x, PAD * scale_y, MIN_DEPTH)
        share = valid.to(tl.float32) * tl.load(view_mask + image)
        seen += share
        area = map_width * map_height
        offsets, weights = bilinear_taps(x, y, map_width, map_height)
        value = read_vectors(maps + image * area * CHANNELS, offsets, weights, CHANNELS, CHANNELS)
        sums += share[:, None] * value
        squares += share[:, None] * value * value
        color = read_vectors(colors + image * area * 3, offsets, weights, 3, FEW)
        color_sums += share[:, None] * color
        color_squares += share[:, None] * color * color
        behind, confidence = behind_surface(
            prior, image, x, y, z, near, far, prior_width, prior_height, planes, LINDISP
        )
        residual = squashed(behind, confidence)
        confidence *= share
        residuals += confidence * residual
        confidences += confidence
        nearest = tl.minimum(nearest, 1 - confidence * (1 - tl.abs(residual)))
    mean, variance = view_means(sums, squares, seen)
    color_mean, color_variance = view_means(color_sums, color_squares, seen)
    similarity = channel_similarity(mean, variance, seen)
    column = tl.arange(0, FEW)[None, :]
    given = context + (batch * count + point)[:, None] * CONTEXTS + column
    given = tl.load(given, exists[:, None] & (column < CONTEXTS), 0.0)
    statistics = mean, variance, color_mean, color_variance, similarity, given
    inverse = 1 / tl.maximum(seen, 1.0)
    rely = tl.load(reliability + batch) + tl.zeros([POINTS], tl.float32)
    values = residuals * inverse, nearest, confidences * inverse, rely, seen / (1 + seen)

    inputs: tl.constexpr = 2 * CHANNELS + 6 + GROUPS + 5 + CONTEXTS
    linear = bias_rows(inward_bias, POINTS, WIDTH) + bias_rows(outward_bias, POINTS, WIDTH)
    linear = _first_layer(
        linear, statistics, values, inward, inward_matrix, CONTEXTS, inputs, GROUPS, PRECISION
    )
    hidden = bias_rows(inward_bias + WIDTH, POINTS, 2 * WIDTH)
    inward, inward_matrix = inward + WIDTH * inputs, inward_matrix + WIDTH * ((inputs + 7) // 8 * 8)
    hidden = _first_layer(
        hidden, statistics, values, inward, inward_matrix, CONTEXTS, inputs, GROUPS, PRECISION
    )
    linear = add_product(linear, gelu(hidden), outward_matrix, 2 * WIDTH, PRECISION)
    # Plane by plane: a volume with its channels last.
    target = ((batch * SAMPLES + sample) * rays + ray)[:, None] * WIDTH
    target += tl.arange(0, WIDTH)[None, :]
    tl.store(out + target, linear.to(out.dtype.element_ty), exists[:, None])


@operator("embed_points")
def _embed_points(
    maps: Tensor,
    colors: Tensor,
    prior: Tensor,
    reliability: Tensor,
    view_mask: Tensor,
    projections: Tensor,
    near_far: Tensor,
    origins: Tensor,
    directions: Tensor,
    t: Tensor,
    context: Tensor,
    inward: Tensor,
    inward_matrix: Tensor,
    inward_bias: Tensor,
    outward_matrix: Tensor,
    outward_bias: Tensor,
    groups: int,
    height: int,
    width: int,
    planes: int,
    lindisp: bool,
    pad: float,
) -> Tensor:
    batch, views, channels = maps.shape[:3]
    rays, samples = t.shape[1:]
    outputs = len(outward_bias)
    pixels = (each.permute(0, 1, 3, 4, 2) for each in (maps, colors))
    tensors = (*pixels, prior, reliability, view_mask, projections, near_far, origins, directions)
    tensors = (*tensors, t, context, inward, inward_matrix, inward_bias)
    tensors = (*tensors, outward_matrix, outward_bias)
    out = torch.empty(batch, samples, rays, outputs, dtype=inward_matrix.dtype, device=t.device)
    _embed_kernel[(-(-rays * samples // _POINTS), batch)](
        *(*(tensor.contiguous() for tensor in tensors), out, rays),
        *(maps.shape[-1], maps.shape[-2], prior.shape[-1], prior.shape[-2]),
        *(2 / width, 2 / height, float(planes)),
        *(views, samples, channels, outputs, groups, context.shape[-1], lindisp, MIN_DEPTH),
        *(pad, MIN_SIZE, _POINTS, "ieee"),
        num_warps=_WARPS,
    )
    return out


@_embed_points.register_fake
def _(maps: Tensor, *rest: object) -> Tensor:
    t, matrix, bias = rest[8], rest[11], rest[14]
    assert isinstance(t, Tensor)
    assert isinstance(matrix, Tensor)
    assert isinstance(bias, Tensor)
    batch, rays, samples = t.shape
    return maps.new_empty((batch, samples, rays, len(bias)), dtype=matrix.dtype)


def embed_points(
    layers: tuple[nn.Linear, nn.Linear],
    groups: int,
    scene: SceneFeatures,
    maps: Float[Tensor, "batch view channel map_height map_width"],
    colors: Float[Tensor, "batch view 3 map_height map_width"],
    rays: Rays,
    t: Float[Tensor, "batch ray plane"],
    context: Float[Tensor, "batch ray plane context"],
    planes: DepthPlanes,
    pad: float,
) -> Float[Tensor, "batch plane ray width"]:
    """Return the matching costs of points on rays, before their context, embedded by layers.

    ``layers`` are the inward and the outward layer of ``PointCosts``.
    """
    inward, outward = layers
    dtype = working_dtype(t)
    with full_precision(t):
        inward_matrix, outward_matrix = converted([inward.weight, outward.weight], dtype)
        return _embed_points(
            *(maps.float(), colors.float(), scene.prior.depth_and_confidence().float()),
            *(scene.prior.reliability.float(), existing_views(scene), projections(scene.cameras)),
            *(planes.near_far, rays.origins, rays.directions, t, context.float()),
            *(inward.weight, inward_matrix, inward.bias, outward_matrix, outward.bias),
            *(groups, *scene.size, planes.count, planes.lindisp, pad),
        )
