"""The point that cameras look at."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_FALLBACK_WEIGHT = 1e-2
"""Of the fallback point, which decides where axes are nearly parallel."""


def nearest_point_to_axes(
    centers: Float[Tensor, "view 3"],
    axes: Float[Tensor, "view 3"],
    fallback: Float[Tensor, " 3"] | None = None,
) -> Float[Tensor, " 3"]:
    """Return the point nearest to all lines ``centers + t * axes`` (unit), in least squares.

    The system is singular where all axes are parallel, unless there is a ``fallback`` point to be
    near to as well.
    """
    identity = torch.eye(3).to(axes)
    across = identity - axes[:, :, None] * axes[:, None, :]
    matrix, offset = across.mean(0), (across @ centers[:, :, None]).mean(0)[:, 0]
    if fallback is not None:
        matrix, offset = matrix + _FALLBACK_WEIGHT * identity, offset + _FALLBACK_WEIGHT * fallback
    return torch.linalg.solve(matrix, offset)
