"""Points from pairs of rays."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from utils.cameras import Cameras, pixel_directions, rotate


def halfway_points(
    pixels: Float[Tensor, "2 match 2"], cameras: Cameras
) -> tuple[Float[Tensor, "match 3"], Float[Tensor, " match"]]:
    """Return the points of the world halfway between the rays of matched pixels of two views.

    Returns:
        Points, and the rays' angles in degrees: where they are nearly parallel, the point is finite
        but meaningless.
    """
    directions = rotate(pixel_directions(pixels, cameras.intrinsics), cameras)
    first, second = torch.nn.functional.normalize(directions, dim=-1)
    baseline = (cameras.centers[1] - cameras.centers[0]).expand_as(first)
    # The points of both rays that are nearest to each other.
    cosine = (first * second).sum(-1).clamp(-1, 1)
    sine_squared = (1 - cosine**2).clamp_min(1e-9)
    along_first, along_second = (baseline * first).sum(-1), (baseline * second).sum(-1)
    far_first = (along_first - cosine * along_second) / sine_squared
    far_second = (cosine * along_first - along_second) / sine_squared
    middle = (far_first[:, None] * first + far_second[:, None] * second + baseline) / 2
    return middle + cameras.centers[0], torch.rad2deg(cosine.acos())
