"""What every reader asks of a camera pose before it trusts it."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from utils.errors import UserError

_MAX_DEVIATION = 1e-3


def rigid_c2w(matrix: Float64[Tensor, "3 4"], source: str) -> Float64[Tensor, "4 4"]:
    """Complete a pose, with the rounding of its file taken out of the rotation.

    Args:
        matrix: Rotation and translation.
        source: The file and place of the pose, to begin the error message.

    Raises:
        UserError: It is not finite, or no rotation and translation.
    """
    if not bool(matrix.float().isfinite().all()):
        raise UserError(f"{source}: the pose holds values that are not finite.")
    rotation = matrix[:, :3]
    deviation = (rotation @ rotation.T - torch.eye(3, dtype=torch.float64)).abs().max().item()
    determinant = torch.linalg.det(rotation).item()
    orthonormal = deviation <= _MAX_DEVIATION
    if not orthonormal or determinant < 0:
        problem = (
            "it is a mirror image (determinant -1); an axis has the wrong sign"
            if orthonormal
            else f"its columns are not orthonormal (by {deviation:.3g})"
        )
        raise UserError(
            f"{source}: the rotation of the pose is none: {problem}. Export the cameras again, "
            "without scaling or mirroring."
        )
    left, _, right = torch.linalg.svd(rotation)
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[:3, :3] = left @ right
    c2w[:3, 3] = matrix[:, 3]
    return c2w
