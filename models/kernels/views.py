"""One source view read at the samples of bundles, as part of a Triton kernel."""
# Within kernels types are Triton's.
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false

from __future__ import annotations

from typing import Any

from models.kernels.bilinear import bilinear_taps, read_vectors
from models.kernels.geometry import behind_surface, inside_image, project, squashed
from models.kernels.layers import add_part, add_product, add_values
from models.kernels.triton_support import kernel, tl


@kernel
def _directions(center, origin, direction, t):
    """Return the four values of ``projection.relative_directions``."""
    ox, oy, oz = origin
    dx, dy, dz = direction
    length = tl.sqrt(dx * dx + dy * dy + dz * dz)
    vx, vy, vz = dx / length, dy / length, dz / length
    fx, fy = ox - tl.load(center), oy - tl.load(center + 1)
    fz = oz - tl.load(center + 2)
    along, travelled = fx * vx + fy * vy + fz * vz, t * length
    squared = travelled * (travelled + 2 * along) + (fx * fx + fy * fy + fz * fz)
    inverse = tl.rsqrt(tl.maximum(squared, 1e-12))
    cosine = tl.minimum(tl.maximum((along + travelled) * inverse, -1.0), 1.0)
    scale = tl.rsqrt(tl.maximum(2 - 2 * cosine, 1e-10))
    own, other = (1 - travelled * inverse) * scale, inverse * scale
    x = tl.minimum(tl.maximum(own * vx - other * fx, -1.0), 1.0)
    y = tl.minimum(tl.maximum(own * vy - other * fy, -1.0), 1.0)
    z = tl.minimum(tl.maximum(own * vz - other * fz, -1.0), 1.0)
    return x, y, z, cosine


@kernel
def _pixel_colors(
    image, scene, sizes, ray, center_x, center_y, PIXELS: tl.constexpr, MIN_DEPTH: tl.constexpr,
    LANES: tl.constexpr,
):  # fmt: skip
    """Return the colours of a bundle's pixels, and their means in the first three lanes."""
    images, matrices = scene[1], scene[4]
    width, height, pad = sizes[4], sizes[5], sizes[6]
    origin, pixel_direction, t = ray
    ox, oy, oz = origin
    lane = tl.arange(0, LANES)[None, :]
    origin = ox[:, None], oy[:, None], oz[:, None]
    scale_x, scale_y = 2 / width, 2 / height
    x, y, z = project(matrices + image * 12, origin, pixel_direction, t[:, None], scale_x, scale_y)
    x, y, valid = inside_image(x, y, z, pad * scale_x, pad * scale_y, MIN_DEPTH)
    # Pixels outside the image get the colour of the bundle's centre, which may be inside.
    x, y = tl.where(valid, x, center_x[:, None]), tl.where(valid, y, center_y[:, None])
    offsets, weights = bilinear_taps(x, y, width, height)
    plane = images + (image * 3 + lane % 3) * width * height
    used = (lane < 3 * PIXELS) & (valid | True)  # in the shape of the positions
    colors = weights[0] * tl.load(plane + offsets[0], used, 0.0)
    colors += weights[1] * tl.load(plane + offsets[1], used, 0.0)
    colors += weights[2] * tl.load(plane + offsets[2], used, 0.0)
    colors += weights[3] * tl.load(plane + offsets[3], used, 0.0)
    means = tl.zeros_like(colors)
    for channel in tl.static_range(3):
        mean = tl.sum(tl.where(lane % 3 == channel, colors, 0.0), 1) / PIXELS
        means = tl.where(lane == channel, mean[:, None], means)
    return colors, means


@kernel
def read_view(
    image, scene, sizes, origin, direction, pixel_direction, t, weights, CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr, PIXELS: tl.constexpr, LINDISP: tl.constexpr, MIN_DEPTH: tl.constexpr,
    BEHIND: tl.constexpr, LANES: tl.constexpr, PRECISION: tl.constexpr,
) -> Any:  # fmt: skip
    """Return what one view shows: features, colours, their means, products, whether it sees.

    The products are those of the field's first layer on views, without its bias.
    """
    features, _, prior, view_mask, matrices, centers, near, far = scene
    map_width, map_height, prior_width, prior_height, width, height, pad, planes = sizes
    values, matrix = weights
    scale_x, scale_y = 2 / width, 2 / height
    x, y, z = project(matrices + image * 12, origin, direction, t, scale_x, scale_y)
    x, y, valid = inside_image(x, y, z, pad * scale_x, pad * scale_y, MIN_DEPTH)
    offsets, shares = bilinear_taps(x, y, map_width, map_height)
    pixels = features + image * map_width * map_height * CHANNELS
    feature = read_vectors(pixels, offsets, shares, CHANNELS, CHANNELS)
    ray = origin, pixel_direction, t
    colors, means = _pixel_colors(image, scene, sizes, ray, x, y, PIXELS, MIN_DEPTH, LANES)

    inputs: tl.constexpr = CHANNELS + 10
    hidden = tl.zeros([t.shape[0], WIDTH], tl.float32)
    hidden = add_product(hidden, feature, matrix, inputs, PRECISION)
    hidden = add_part(hidden, means, matrix + CHANNELS, inputs, 3, PRECISION)
    differences = _directions(centers + image * 3, origin, direction, t)
    hidden = add_values(hidden, differences, values + CHANNELS + 3, inputs)
    behind, confidence = behind_surface(
        prior, image, x, y, z, near, far, prior_width, prior_height, planes, LINDISP
    )
    visibility = 1 - confidence * tl.sigmoid(2 * (behind - BEHIND))
    residuals = squashed(behind, confidence), confidence, visibility
    hidden = add_values(hidden, residuals, values + CHANNELS + 7, inputs)
    return feature, colors, means, hidden, valid.to(tl.float32) * tl.load(view_mask + image)
