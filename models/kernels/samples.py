"""Source views read and encoded at the samples of bundles, by a Triton kernel.

The first half of ``render_bundles`` of ``models.bundles``: projection, reading of every view, the
radiance field up to its point encoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from models.kernels.field import add_statistics, online_softmax
from models.kernels.geometry import (
    channel_similarity,
    existing_views,
    load_vector,
    projections,
    view_means,
)
from models.kernels.layers import (
    add_product,
    bias_rows,
    dot_row,
    gelu,
    load_rows,
    split_parts,
    store_rows,
)
from models.kernels.triton_support import MIN_SIZE, kernel_of_sizes, operator, tl
from models.kernels.views import read_view
from models.projection import MIN_DEPTH, VISIBLE_BEHIND
from models.ray_sampling import DepthPlanes
from utils.cameras import Rays

if TYPE_CHECKING:
    from models.projection import SceneFeatures

_POINTS, _WARPS = 64, 4
"""Samples and warps per program."""
LANES = MIN_SIZE
"""Channels of pixels' colours, context and composited features, padded to this number."""
ENCODER_PARTS = (
    ("view_input.weight", "view_input.weight*"),
    ("view_input.bias", "view_hidden.weight*", "view_hidden.bias", "view_score.weight"),
    ("shared_input.weight", "shared_input.weight*"),
    (
        *("point_encoder.0.weight", "point_encoder.0.weight*", "point_encoder.0.bias"),
        *("point_encoder.2.weight*", "point_encoder.2.bias"),
    ),
)
"""Parameters of the field that each part of the kernel gets; * marks weights of its products."""


@kernel_of_sizes(
    "rays", "map_width", "map_height", "prior_width", "prior_height", "width", "height"
)
def _encode_kernel(
    features, images, prior, view_mask, matrices, centers, near_far, origins, directions,
    pixel_directions, depths, context, input_weights, view_weights, shared_weights,
    point_weights, points_out, states_out, features_out, colors_out, rays,
    map_width, map_height, prior_width, prior_height, width, height, pad, planes,
    VIEWS: tl.constexpr, SAMPLES: tl.constexpr, CHANNELS: tl.constexpr, CONTEXTS: tl.constexpr,
    VIEW_WIDTH: tl.constexpr, GROUPS: tl.constexpr, PIXELS: tl.constexpr, LINDISP: tl.constexpr,
    MIN_DEPTH: tl.constexpr, BEHIND: tl.constexpr, LANES: tl.constexpr, POINTS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1).to(tl.int64)
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    exists = point < rays * SAMPLES
    index = batch * rays + point // SAMPLES
    point = batch * rays * SAMPLES + point
    lane = tl.arange(0, LANES)[None, :]
    origin = load_vector(origins + index * 3, exists)
    direction = load_vector(directions + index * 3, exists)
    used = exists[:, None] & (lane < 3 * PIXELS)
    pixel = pixel_directions + (index[:, None] * PIXELS + lane // 3) * 3
    pixel_direction = load_vector(pixel, used)
    t = tl.load(depths + point, exists, 1.0)
    given = context + point[:, None] * CONTEXTS + lane
    given = tl.load(given, exists[:, None] & (lane < CONTEXTS), 0.0)
    near, far = tl.load(near_far + 2 * batch), tl.load(near_far + 2 * batch + 1)
    scene = features, images, prior, view_mask, matrices, centers, near, far
    sizes = map_width, map_height, prior_width, prior_height, width, height, pad, planes

    sums = tl.zeros([POINTS, CHANNELS], tl.float32)
    squares = tl.zeros([POINTS, CHANNELS], tl.float32)
    color_sums = tl.zeros([POINTS, LANES], tl.float32)
    color_squares = tl.zeros([POINTS, LANES], tl.float32)
    seen = tl.zeros([POINTS], tl.float32)
    for view in range(VIEWS):
        image = batch * VIEWS + view
        feature, colors, color, products, sees = read_view(
            image, scene, sizes, origin, direction, pixel_direction, t, input_weights, CHANNELS,
            VIEW_WIDTH, PIXELS, LINDISP, MIN_DEPTH, BEHIND, LANES, PRECISION,
        )  # fmt: skip
        row = (point * VIEWS + view)[:, None]
        store_rows(features_out, row, feature, exists)
        # The last lane holds whether the view sees the point.
        store_rows(colors_out, row, tl.where(lane == LANES - 1, sees[:, None], colors), exists)
        # The second loop adds what depends on all views.
        store_rows(states_out, row, products, exists)
        seen += sees
        sums += sees[:, None] * feature
        squares += sees[:, None] * feature * feature
        color_sums += sees[:, None] * color
        color_squares += sees[:, None] * color * color
    mean, variance = view_means(sums, squares, seen)
    color_mean, color_variance = view_means(color_sums, color_squares, seen)
    similarity = channel_similarity(mean, variance, seen)
    count = seen / (1 + seen)
    statistics = mean, variance, color_mean, color_variance, similarity, count, given

    point_width: tl.constexpr = 2 * VIEW_WIDTH
    inputs: tl.constexpr = 2 * CHANNELS + 7 + GROUPS + CONTEXTS
    all_inputs: tl.constexpr = VIEW_WIDTH + inputs
    view_bias, hidden_matrix, hidden_bias, view_score = view_weights
    shared_values, shared_matrix = shared_weights
    first_values, first_matrix, first_bias, second_matrix, second_bias = point_weights
    shared = add_statistics(
        bias_rows(view_bias, POINTS, VIEW_WIDTH), statistics, shared_values, shared_matrix,
        CONTEXTS, inputs, GROUPS, PRECISION,
    )  # fmt: skip
    points = add_statistics(
        bias_rows(first_bias, POINTS, point_width), statistics, first_values + VIEW_WIDTH,
        first_matrix + VIEW_WIDTH, CONTEXTS, all_inputs, GROUPS, PRECISION,
    )  # fmt: skip
    # Each thread may load what another one has stored.
    tl.debug_barrier()
    largest, total, pooled = seen - 1e30, seen * 0, tl.zeros([POINTS, VIEW_WIDTH], tl.float32)
    for view in range(VIEWS):
        row = (point * VIEWS + view)[:, None]
        state = gelu(load_rows(states_out, row, exists, VIEW_WIDTH) + shared)
        bias = bias_rows(hidden_bias, POINTS, VIEW_WIDTH)
        state = gelu(add_product(bias, state, hidden_matrix, VIEW_WIDTH, PRECISION))
        store_rows(states_out, row, state, exists)
        sees = tl.load(colors_out + (point * VIEWS + view) * LANES + LANES - 1, exists, 0.0)
        score = dot_row(state, view_score)
        largest, total, factor, weight = online_softmax(score, sees, largest, total)
        pooled = pooled * factor + weight * state
    pooled /= tl.maximum(total, 1e-30)[:, None]
    points = add_product(points, pooled, first_matrix, all_inputs, PRECISION)
    bias = bias_rows(second_bias, POINTS, point_width)
    points = add_product(bias, gelu(points), second_matrix, point_width, PRECISION)
    store_rows(points_out, point[:, None], points, exists)


@operator("encode_samples")
def _encode_samples(
    scene: list[Tensor],
    rays: list[Tensor],
    weights: list[Tensor],
    size: list[int],
    groups: int,
    planes: int,
    lindisp: bool,
    pad: float,
) -> list[Tensor]:
    features, prior = scene[0], scene[2]
    t, context = rays[3:]
    views, channels, *map_size = features.shape[1:]
    batch, count, samples = t.shape
    outputs = _outputs(scene, rays, weights)
    parts = split_parts(weights, ENCODER_PARTS)
    sides = (*reversed(map_size), *reversed(prior.shape[-2:]), *reversed(size))
    _encode_kernel[(-(-count * samples // _POINTS), batch)](
        *(features.permute(0, 1, 3, 4, 2).contiguous(), *scene[1:], *rays, *parts, *outputs),
        *(count, *sides, pad, float(planes)),
        *(views, samples, channels, context.shape[-1], weights[2].numel(), groups),
        *(rays[2].shape[1] // count, lindisp, MIN_DEPTH, VISIBLE_BEHIND, LANES, _POINTS, "ieee"),
        num_warps=_WARPS,
        num_stages=1,
    )
    return outputs


@_encode_samples.register_fake
def _(
    scene: list[Tensor], rays: list[Tensor], weights: list[Tensor], *rest: object
) -> list[Tensor]:
    return _outputs(scene, rays, weights)


def _outputs(scene: list[Tensor], rays: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    """Return empty outputs, as ``encode_samples`` describes them."""
    (views, channels), (*shape, samples) = scene[0].shape[1:3], rays[3].shape
    width, dtype = weights[2].numel(), weights[1].dtype
    # Colours have more digits than features.
    of_colors = torch.float32 if dtype == torch.float32 else torch.float16

    def empty(*sizes: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.empty(*shape, samples, *sizes, dtype=dtype, device=rays[3].device)

    states, features = empty(views, width), empty(views, channels)
    return [empty(2 * width), states, features, empty(views, LANES, dtype=of_colors)]


def encode_samples(
    weights: list[Tensor],
    groups: int,
    scene: SceneFeatures,
    planes: DepthPlanes,
    rays: Rays,
    pixel_rays: Rays,
    t: Float[Tensor, "batch ray sample"],
    context: Float[Tensor, "batch ray sample context"],
    pad: float,
) -> list[Tensor]:
    """Return the samples' encoded points, and of each view hidden states, features, colours.

    Shapes are ``(batch, ray, sample, [view,] channel)``. ``weights`` are ordered as
    ``ENCODER_PARTS``. Colours are those of the bundle's pixels; their last channel is 1 where the
    view sees the sample. Pixel rays are ordered bundle by bundle and share the origins of ``rays``.
    """
    prior = scene.prior.depth_and_confidence().float()
    maps = [scene.features.float(), scene.images.float(), prior, existing_views(scene)]
    cameras = [projections(scene.cameras), scene.cameras.centers, planes.near_far]
    casts = [rays.origins, rays.directions, pixel_rays.directions, t, context.float()]
    return _encode_samples(
        [maps[0], *(each.contiguous() for each in (*maps[1:], *cameras))],
        [each.contiguous() for each in casts],
        *(weights, list(scene.size), groups, planes.count, planes.lindisp, pad),
    )
