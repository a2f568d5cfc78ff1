"""The embedded matching costs of ray points as one Triton kernel.

What ``PointCosts`` of ``models.cost_volume`` computes in PyTorch: project each point into every
source view, read the views' maps there, take statistics over the views, apply the linear layers.
Only the result is written to memory.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.kernels.bilinear import bilinear_taps, read_scalars, read_vectors
from models.kernels.triton_support import kernel, operator, tl
from models.projection import MIN_DEPTH, SceneFeatures, working_dtype
from models.ray_sampling import DepthPlanes
from utils.cameras import Rays, full_precision

_POINTS, _WARPS = 64, 2
"""Points and warps per program."""
_FEW = 16
"""Fewest rows of a matrix product in Triton: colours and context are filled up with zeros."""
MAX_CONTEXT = _FEW
"""Maximum channels of context."""


@kernel
def _project(matrix, ox, oy, oz, dx, dy, dz, t, scale_x, scale_y):
    """Return positions from -1 to 1 across the image, and z-depths, of points on rays.

    Homogeneous image coordinates are linear in ``t``, as in ``projection.project_samples``.
    """
    m0, m1, m2, m3 = tl.load(matrix), tl.load(matrix + 1), tl.load(matrix + 2), tl.load(matrix + 3)
    x0, x1 = m0 * ox + m1 * oy + m2 * oz + m3, m0 * dx + m1 * dy + m2 * dz
    matrix += 4
    m0, m1, m2, m3 = tl.load(matrix), tl.load(matrix + 1), tl.load(matrix + 2), tl.load(matrix + 3)
    y0, y1 = m0 * ox + m1 * oy + m2 * oz + m3, m0 * dx + m1 * dy + m2 * dz
    matrix += 4
    m0, m1, m2, m3 = tl.load(matrix), tl.load(matrix + 1), tl.load(matrix + 2), tl.load(matrix + 3)
    z0, z1 = m0 * ox + m1 * oy + m2 * oz + m3, m0 * dx + m1 * dy + m2 * dz
    z = z0 + t * z1
    x = (x0 * scale_x - z0) + t * (x1 * scale_x - z1)
    y = (y0 * scale_y - z0) + t * (y1 * scale_y - z1)
    return x, y, z


@kernel
def _scaled_depth(depth, near, far, LINDISP: tl.constexpr):
    """As ``DepthPlanes.coordinates``."""
    if LINDISP:
        depth = tl.maximum(depth, near / 10)
        return (1 / near - 1 / depth) / (1 / near - 1 / far)
    return (depth - near) / (far - near)


@kernel
def _add_product(values, weights, linear, hidden, WIDTH: tl.constexpr, PRECISION: tl.constexpr):
    """Add the products with weights of the linear part and of the hidden layer, twice as wide."""
    values = values.to(weights.dtype.element_ty)
    rows = weights + tl.arange(0, values.shape[1])[:, None] * (3 * WIDTH)
    of_linear = tl.load(rows + tl.arange(0, WIDTH)[None, :])
    of_hidden = tl.load(rows + WIDTH + tl.arange(0, 2 * WIDTH)[None, :])
    linear = tl.dot(values, of_linear, linear, input_precision=PRECISION)
    hidden = tl.dot(values, of_hidden, hidden, input_precision=PRECISION)
    return linear, hidden


@kernel
def _add_value(value, weights, linear, hidden, WIDTH: tl.constexpr):
    """Add the contribution of one value per point."""
    of_linear = tl.load(weights + tl.arange(0, WIDTH))
    of_hidden = tl.load(weights + WIDTH + tl.arange(0, 2 * WIDTH))
    return linear + value[:, None] * of_linear[None, :], hidden + value[:, None] * of_hidden[
        None, :
    ]


@kernel
def _first_layer(statistics, weights, bias, WIDTH: tl.constexpr, PRECISION: tl.constexpr):
    """Return the linear part and the hidden layer of statistics, in the order of the weights."""
    linear = tl.zeros([statistics[0].shape[0], WIDTH], tl.float32)
    linear += tl.load(bias + tl.arange(0, WIDTH))[None, :]
    hidden = tl.zeros([statistics[0].shape[0], 2 * WIDTH], tl.float32)
    hidden += tl.load(bias + WIDTH + tl.arange(0, 2 * WIDTH))[None, :]
    for i in tl.static_range(len(statistics)):  # pyright: ignore
        linear, hidden = _add_product(statistics[i], weights, linear, hidden, WIDTH, PRECISION)
        weights += statistics[i].shape[1] * (3 * WIDTH)
    return linear, hidden


@kernel
def _last_layer(linear, hidden, weights, bias, WIDTH: tl.constexpr, PRECISION: tl.constexpr):
    """Add the outward layer of the hidden one, after GELU, to the linear part."""
    hidden = 0.5 * hidden * (1 + tl.erf(hidden * 0.7071067811865476))
    weights += tl.arange(0, 2 * WIDTH)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    hidden = hidden.to(weights.dtype.element_ty)
    linear = tl.dot(hidden, tl.load(weights), linear, input_precision=PRECISION)
    return linear + tl.load(bias + tl.arange(0, WIDTH))[None, :]


@kernel
def _embed_kernel(
    maps, colors, prior, reliability, view_mask, matrices, near_far, origins, directions, depths,
    context, matrix_weights, value_weights, bias, outward, outward_bias, out, rays, map_width,
    map_height, prior_width, prior_height, scale_x, scale_y, planes, contexts,
    VIEWS: tl.constexpr, SAMPLES: tl.constexpr, CHANNELS: tl.constexpr, WIDTH: tl.constexpr,
    LINDISP: tl.constexpr, MIN_DEPTH: tl.constexpr, PAD: tl.constexpr, FEW: tl.constexpr,
    POINTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1).to(tl.int64)
    count = rays * SAMPLES
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    exists = point < count
    ray, sample = point // SAMPLES, point % SAMPLES
    t = tl.load(depths + batch * count + point, exists, 1.0)
    origin, direction = origins + (batch * rays + ray) * 3, directions + (batch * rays + ray) * 3
    ox, oy = tl.load(origin, exists, 0.0), tl.load(origin + 1, exists, 0.0)
    dx, dy = tl.load(direction, exists, 0.0), tl.load(direction + 1, exists, 0.0)
    oz, dz = tl.load(origin + 2, exists, 0.0), tl.load(direction + 2, exists, 1.0)
    near, far = tl.load(near_far + 2 * batch), tl.load(near_far + 2 * batch + 1)
    sums = tl.zeros([POINTS, CHANNELS], tl.float32)
    squares = tl.zeros([POINTS, CHANNELS], tl.float32)
    color_sums = tl.zeros([POINTS, FEW], tl.float32)
    color_squares = tl.zeros([POINTS, FEW], tl.float32)
    seen = tl.zeros([POINTS], tl.float32)
    residuals, confidences, nearest = seen, seen, seen + 1
    for view in range(VIEWS):
        image = batch * VIEWS + view
        matrix = matrices + image * 12
        x, y, z = _project(matrix, ox, oy, oz, dx, dy, dz, t, scale_x, scale_y)
        shown = tl.maximum(z, MIN_DEPTH)
        x, y = x / shown, y / shown
        inside = (tl.abs(x) <= 1 + PAD * scale_x) & (tl.abs(y) <= 1 + PAD * scale_y)
        valid = inside & (z > MIN_DEPTH)
        x, y = tl.where(valid, x, 0.0), tl.where(valid, y, 0.0)
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
        area = prior_width * prior_height
        offsets, weights = bilinear_taps(x, y, prior_width, prior_height)
        surface = read_scalars(prior + image * 2 * area, offsets, weights)
        confidence = read_scalars(prior + (image * 2 + 1) * area, offsets, weights)
        behind = _scaled_depth(z, near, far, LINDISP) - _scaled_depth(surface, near, far, LINDISP)
        behind = tl.minimum(tl.maximum(behind, -1.0), 1.0) * planes
        residual = tl.where(confidence > 0, behind / (1 + tl.abs(behind)), 0.0)
        confidence *= share
        residuals += confidence * residual
        confidences += confidence
        nearest = tl.minimum(nearest, 1 - confidence * (1 - tl.abs(residual)))
    inverse = 1 / tl.maximum(seen, 1.0)
    mean, color_mean = sums * inverse[:, None], color_sums * inverse[:, None]
    variance = tl.maximum(squares * inverse[:, None] - mean * mean, 0.0)
    color_variance = tl.maximum(color_squares * inverse[:, None] - color_mean * color_mean, 0.0)
    others = (1 / tl.maximum(seen - 1, 1.0))[:, None]
    similarity = tl.where((seen > 1)[:, None], mean * mean - variance * others, 0.0)

    column = tl.arange(0, FEW)[None, :]
    given = context + (batch * count + point)[:, None] * contexts + column
    given = tl.load(given, exists[:, None] & (column < contexts), 0.0)
    statistics = mean, variance, similarity, color_mean, color_variance, given
    linear, hidden = _first_layer(statistics, matrix_weights, bias, WIDTH, PRECISION)
    row: tl.constexpr = 3 * WIDTH
    w = value_weights
    linear, hidden = _add_value(residuals * inverse, w, linear, hidden, WIDTH)
    linear, hidden = _add_value(nearest, w + row, linear, hidden, WIDTH)
    linear, hidden = _add_value(confidences * inverse, w + 2 * row, linear, hidden, WIDTH)
    rely = tl.load(reliability + batch) + tl.zeros([POINTS], tl.float32)
    linear, hidden = _add_value(rely, w + 3 * row, linear, hidden, WIDTH)
    linear, hidden = _add_value(seen / (1 + seen), w + 4 * row, linear, hidden, WIDTH)
    linear = _last_layer(linear, hidden, outward, outward_bias, WIDTH, PRECISION)
    # Plane by plane: a volume with its channels last.
    target = ((batch * SAMPLES + sample) * rays + ray)[:, None] * WIDTH + tl.arange(0, WIDTH)[
        None, :
    ]
    tl.store(out + target, linear.to(out.dtype.element_ty), exists[:, None])


@operator("embed_points")
def _embed_points(
    maps: Tensor,
    colors: Tensor,
    prior: Tensor,
    reliability: Tensor,
    view_mask: Tensor,
    matrices: Tensor,
    near_far: Tensor,
    origins: Tensor,
    directions: Tensor,
    t: Tensor,
    context: Tensor,
    matrix_weights: Tensor,
    value_weights: Tensor,
    bias: Tensor,
    outward: Tensor,
    outward_bias: Tensor,
    height: int,
    width: int,
    planes: int,
    lindisp: bool,
    pad: float,
) -> Tensor:
    batch, views, channels = maps.shape[:3]
    rays, samples = t.shape[1:]
    outputs = outward.shape[1]
    pixels = (each.permute(0, 1, 3, 4, 2) for each in (maps, colors))
    tensors = (*pixels, prior, reliability, view_mask, matrices, near_far, origins, directions, t)
    tensors = (*tensors, context, matrix_weights, value_weights, bias, outward, outward_bias)
    out = torch.empty(batch, samples, rays, outputs, dtype=matrix_weights.dtype, device=t.device)
    _embed_kernel[(-(-rays * samples // _POINTS), batch)](
        *(*(tensor.contiguous() for tensor in tensors), out, rays),
        *(maps.shape[-1], maps.shape[-2], prior.shape[-1], prior.shape[-2]),
        *(2 / width, 2 / height, float(planes), context.shape[-1]),
        *(views, samples, channels, outputs, lindisp, MIN_DEPTH, pad, _FEW, _POINTS, "ieee"),
        num_warps=_WARPS,
    )
    return out


@_embed_points.register_fake
def _(maps: Tensor, *rest: object) -> Tensor:
    t, matrix_weights, outward = rest[8], rest[10], rest[13]
    assert isinstance(t, Tensor)
    assert isinstance(matrix_weights, Tensor)
    assert isinstance(outward, Tensor)
    batch, rays, samples = t.shape
    shape = (batch, samples, rays, outward.shape[1])
    return maps.new_empty(shape, dtype=matrix_weights.dtype)


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
        channels, contexts = maps.shape[2], context.shape[-1]
        sizes = [channels, channels, 3, 3, groups, 5, contexts]
        parts = list(inward.weight.t().split(sizes))
        mean, variance, color_mean, color_variance, similarity, values, of_context = parts
        # The kernel multiplies before it sums over a group's channels.
        similarity = similarity.repeat_interleave(channels // groups, 0)
        few = [nn.functional.pad(w, (0, 0, 0, _FEW - len(w))) for w in (color_mean, color_variance)]
        few.append(nn.functional.pad(of_context, (0, 0, 0, _FEW - contexts)))
        cameras = scene.cameras
        matrices = (cameras.intrinsics[..., None] * cameras.w2c[..., None, :3, :]).sum(-2)
        exists = scene.view_mask
        if exists is None:
            exists = torch.ones(maps.shape[:2], device=t.device)
        return _embed_points(
            *(maps.float(), colors.float(), scene.prior.depth_and_confidence().float()),
            *(scene.prior.reliability.float(), exists.float(), matrices, planes.near_far),
            *(rays.origins, rays.directions, t, context.float()),
            torch.cat([mean, variance, similarity, *few]).to(dtype),
            *(values.float(), inward.bias.float(), outward.weight.t().to(dtype)),
            *(outward.bias.float(), *scene.size, planes.count, planes.lindisp, pad),
        )
