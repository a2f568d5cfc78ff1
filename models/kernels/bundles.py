"""Bundles rendered from their samples by Triton kernels.

What ``render_bundles`` of ``models.bundles`` computes in PyTorch. The first kernel reads the views
and encodes the samples; the second, here, lets the samples of a ray attend to each other, blends
the views' colours, and composites.
"""
# Within kernels types are Triton's.
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from models.kernels.field import attend, online_softmax, regress
from models.kernels.geometry import scaled_depth
from models.kernels.layers import (
    add_product,
    bias_rows,
    converted,
    dot_row,
    gelu,
    load_rows,
    split_parts,
)
from models.kernels.samples import ENCODER_PARTS, LANES, encode_samples
from models.kernels.triton_support import kernel_of_sizes, operator, tl, triton, use_kernels
from models.projection import working_dtype
from models.ray_sampling import DepthPlanes
from utils.cameras import Rays, full_precision

if TYPE_CHECKING:
    from models.config import RenderConfig
    from models.projection import SceneFeatures
    from models.radiance_field import RadianceField

_POINTS, _WARPS, _REGISTERS = 32, 2, 168
"""Samples and warps per program, which renders all rays whose samples fit; registers per thread.

With 64 samples and 4 warps, for which Triton uses wgmma, the products of ``layers.add_product``
address shared memory out of range, on an H100 with Triton 3.6 (``compute-sanitizer --tool
memcheck``). Triton lays out shared memory, so the fault is probably its own. With these values, and
in the kernel of ``samples``, the tool finds no error.
"""
_PARTS = (
    (
        *("ray_layers.0.position.weight", "ray_layers.0.norm1.weight", "ray_layers.0.norm1.bias"),
        *("ray_layers.0.qkv.weight*", "ray_layers.0.qkv.bias", "ray_layers.0.proj.weight*"),
        "ray_layers.0.proj.bias",
    ),
    (
        *("ray_layers.0.norm2.weight", "ray_layers.0.norm2.bias", "ray_layers.0.mlp.0.weight*"),
        *("ray_layers.0.mlp.0.bias", "ray_layers.0.mlp.2.weight*", "ray_layers.0.mlp.2.bias"),
    ),
    ("density.weight", "density.bias"),
    (
        *("blend_view.bias", "blend_score.weight", "blend_score.bias", "blend_view.weight*"),
        "blend_point.weight*",
    ),
    ("regressed.0.weight*", "regressed.0.bias", "regressed.2.weight*", "regressed.2.bias"),
    ("feature.weight*", "feature.bias"),
)
"""Parameters of the field that each part of the second kernel gets; * as in ``ENCODER_PARTS``."""


@kernel_of_sizes("rays")
def _render_kernel(
    points, states, features, colors, depths, near_far, attention_weights, mlp_weights,
    density_weights, blend_weights, regressed_weights, feature_weights, colors_out, features_out,
    maps_out, weights_out, rays, background, VIEWS: tl.constexpr, SAMPLES: tl.constexpr,
    CHANNELS: tl.constexpr, VIEW_WIDTH: tl.constexpr, HEADS: tl.constexpr, PIXELS: tl.constexpr,
    LINDISP: tl.constexpr, LANES: tl.constexpr, POINTS: tl.constexpr, RAYS_UP: tl.constexpr,
    FREQUENCIES: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):  # fmt: skip
    RAYS: tl.constexpr = POINTS // SAMPLES
    width: tl.constexpr = 2 * VIEW_WIDTH
    batch = tl.program_id(1).to(tl.int64)
    row = tl.arange(0, POINTS)
    own_ray, sample = row // SAMPLES, row % SAMPLES
    exists = (own_ray < RAYS) & (tl.program_id(0) * RAYS + own_ray < rays)
    index = (batch * rays + tl.program_id(0) * RAYS) * SAMPLES + row
    t = tl.load(depths + index, exists, 1.0)
    near, far = tl.load(near_far + 2 * batch), tl.load(near_far + 2 * batch + 1)
    same_ray = own_ray[:, None] == own_ray[None, :]
    encoded = load_rows(points, index[:, None], exists, width)
    encoded = attend(
        encoded, scaled_depth(t, near, far, LINDISP), same_ray, attention_weights, mlp_weights,
        HEADS, FREQUENCIES, PRECISION,
    )  # fmt: skip
    density, density_bias = density_weights
    optical = dot_row(encoded, density) + tl.load(density_bias)
    optical = tl.maximum(optical, 0.0) + tl.log(1 + tl.exp(-tl.abs(optical)))
    optical = tl.where(exists, optical, 0.0)
    earlier = same_ray & (sample[None, :] < sample[:, None])
    before = tl.sum(tl.where(earlier, optical[None, :], 0.0), 1)
    alpha = (1 - tl.exp(-optical)) * tl.exp(-before)

    blend_bias, blend_score, score_bias, blend_view, blend_point = blend_weights
    of_point = bias_rows(blend_bias, POINTS, VIEW_WIDTH)
    of_point = add_product(of_point, encoded, blend_point, width, PRECISION)
    blended, largest = regress(encoded, regressed_weights, VIEW_WIDTH, PIXELS, LANES, PRECISION)
    lane = tl.arange(0, LANES)[None, :]
    total, seen = largest * 0 + 1, largest * 0
    pooled = tl.zeros([POINTS, CHANNELS], tl.float32)
    for view in range(VIEWS):
        at = (index * VIEWS + view)[:, None]
        state = load_rows(states, at, exists, VIEW_WIDTH)
        color = load_rows(colors, at, exists, LANES)
        sees = tl.sum(tl.where(lane == LANES - 1, color, 0.0), 1)
        hidden = gelu(add_product(of_point, state, blend_view, VIEW_WIDTH, PRECISION))
        score = dot_row(hidden, blend_score) + tl.load(score_bias)
        largest, total, factor, weight = online_softmax(score, sees, largest, total)
        blended = blended * factor + weight * color
        feature = load_rows(features, at, exists, CHANNELS)
        pooled = pooled * factor + weight * feature
        seen += sees
    blended, pooled = blended / total[:, None], pooled / total[:, None]
    feature_matrix, feature_bias = feature_weights
    composited = bias_rows(feature_bias, POINTS, LANES)
    composited = add_product(composited, encoded, feature_matrix, width + CHANNELS, PRECISION)
    feature_matrix += width
    composited = add_product(composited, pooled, feature_matrix, width + CHANNELS, PRECISION)

    # Sums over the samples of a ray: products with a matrix of the samples' weights.
    out_ray = tl.arange(0, RAYS_UP)
    shares = tl.where(out_ray[:, None] == own_ray[None, :], alpha[None, :], 0.0)
    opacity = tl.sum(shares, 1)
    depth = tl.sum(shares * t[None, :], 1) + (1 - opacity) * far
    visibility = tl.sum(shares * (seen / VIEWS)[None, :], 1)
    blended = tl.dot(shares, blended, input_precision=SUM_PRECISION)
    blended += ((1 - opacity) * background)[:, None]
    composited = tl.dot(shares, composited, input_precision=SUM_PRECISION)
    tl.store(weights_out + index, alpha, exists)
    ray = tl.program_id(0) * RAYS + out_ray
    written = (out_ray < RAYS) & (ray < rays)
    ray = batch * rays + ray
    used = written[:, None] & (lane < 3 * PIXELS)
    tl.store(colors_out + ray[:, None] * (3 * PIXELS) + lane, blended, used)
    tl.store(features_out + ray[:, None] * LANES + lane, composited, written[:, None])
    tl.store(maps_out + ray * 3, depth, written)
    tl.store(maps_out + ray * 3 + 1, opacity, written)
    tl.store(maps_out + ray * 3 + 2, visibility, written)


@operator("render_samples")
def _render_samples(
    samples: list[Tensor],
    t: Tensor,
    near_far: Tensor,
    weights: list[Tensor],
    pixels: int,
    heads: int,
    lindisp: bool,
    background: float,
) -> list[Tensor]:
    points, states, features, _ = samples
    batch, rays, count = t.shape
    outputs = _outputs(t, pixels)
    per_program, precise = _POINTS // count, points.dtype == torch.float32
    _render_kernel[(-(-rays // per_program), batch)](
        *(*samples, t, near_far, *split_parts(weights, _PARTS), *outputs, rays, background),
        *(states.shape[3], count, features.shape[-1], states.shape[-1], heads, pixels, lindisp),
        *(LANES, _POINTS, max(triton.next_power_of_2(per_program), 16)),
        *(weights[0].shape[1] // 2, "ieee", "ieee" if precise else "tf32"),
        num_warps=_WARPS,
        num_stages=1,
        maxnreg=_REGISTERS,
    )
    return outputs


@_render_samples.register_fake
def _(
    samples: list[Tensor],
    t: Tensor,
    near_far: Tensor,
    weights: list[Tensor],
    pixels: int,
    *rest: object,
) -> list[Tensor]:
    return _outputs(t, pixels)


def _outputs(t: Tensor, pixels: int) -> list[Tensor]:
    """Return empty outputs: colours, features, three maps, weights of the samples."""
    sizes = (3 * pixels, LANES, 3, t.shape[2])
    return [torch.empty(*t.shape[:2], size, device=t.device) for size in sizes]


def supported(field: RadianceField, settings: RenderConfig, t: Tensor, context: Tensor) -> bool:
    """Return whether the kernel runs here and can render with a field of this size."""
    width, narrow = field.density.in_features, field.view_hidden.in_features
    channels = field.feature.in_features - width
    few = 3 * settings.bundle_size**2 < LANES and context.shape[-1] <= LANES
    same = width == 2 * narrow and len(field.ray_layers) == 1 and t.shape[-1] <= LANES
    if not few or not same or field.feature.out_features != LANES:
        return False
    head = width // field.ray_layers[0].heads
    return use_kernels(t, channels, narrow, width, head)


def render_samples(
    field: RadianceField,
    settings: RenderConfig,
    scene: SceneFeatures,
    planes: DepthPlanes,
    rays: Rays,
    pixel_rays: Rays,
    t: Float[Tensor, "batch ray sample"],
    context: Float[Tensor, "batch ray sample context"],
) -> tuple[
    Float[Tensor, "batch ray color"],
    Float[Tensor, "batch ray feature"],
    Float[Tensor, "batch ray 3"],
    Float[Tensor, "batch ray sample"],
]:
    """Return composited colours and features; depth, opacity, visibility; weights of samples.

    Pixel rays are ordered bundle by bundle and share the origins of ``rays``.
    """
    parameters = dict(field.named_parameters())
    names = [name for part in (*ENCODER_PARTS, *_PARTS) for name in part]
    matrices = [name[:-1] for name in names if name.endswith("*")]
    dtype, pixels = working_dtype(t), settings.bundle_size**2
    with full_precision(t):
        products = iter(converted([parameters[name] for name in matrices], dtype))
        weights = [next(products) if name.endswith("*") else parameters[name] for name in names]
        count = sum(map(len, ENCODER_PARTS))
        samples = encode_samples(
            *(weights[:count], field.groups, scene, planes, rays, pixel_rays, t, context),
            settings.pad,
        )
        colors, features, maps, shares = _render_samples(
            *(samples, t.contiguous(), planes.near_far.contiguous(), weights[count:], pixels),
            *(field.ray_layers[0].heads, planes.lindisp, settings.background),
        )
    return colors, features, maps, shares
