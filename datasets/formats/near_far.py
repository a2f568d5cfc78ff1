"""Near and far of a scene whose files do not say them."""

from __future__ import annotations

import logging

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from utils.cameras import Cameras
from utils.errors import UserError

_NEAR_OF_FOCUS, _FAR_OF_FOCUS = 0.3, 2.5
_MIN_SPREAD = 1e-3
"""Squared sine of the spread of viewing directions (2 degrees) below which they are parallel."""
_MIN_DEPTH_RATIO = 1e-3
"""A common place that one camera all but touches is none."""

_LOG = logging.getLogger(__name__)


def given_near_far(near: float, far: float, source: str) -> Float[Tensor, " 2"]:
    """Check a range that somebody chose.

    Args:
        near: Nearest z-depth.
        far: Farthest z-depth.
        source: Where it was chosen, to begin the error message.

    Raises:
        UserError: It is no range.
    """
    near_far = torch.tensor([near, far], dtype=torch.float64).float()
    if not 0 < near_far[0].item() < near_far[1].item() < float("inf"):
        raise UserError(
            f"{source}: near is {near:g} and far {far:g}; 0 < near < far must hold, in the units "
            "of the camera positions."
        )
    return near_far


def estimate_near_far(cameras: Cameras, source: str) -> Float[Tensor, " 2"]:
    """Estimate near and far from the cameras alone.

    Whoever photographs a scene points the camera at it. The point closest to all optical axes (in
    the sense of least squares) is where they look; near is 0.3 times its smallest z-depth in any
    view, far 2.5 times its largest. That is wide on purpose: what lies outside the range cannot
    be rendered, what is empty inside it costs only samples. It contains the known ranges of DTU
    (2.8 times as long as those), LLFF's fern (1.2) and instant-ngp's fox (1.9). A landscape far
    behind the subject is cut off.

    Args:
        cameras: All views; one batch axis.
        source: The file to name in errors.

    Raises:
        UserError: The cameras do not look at a common place, so that nothing can be estimated.
    """
    centers, axes = cameras.centers.double(), cameras.c2w[:, :3, 2].double()
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    spread = torch.linalg.eigvalsh(across.mean(0))[0].item()
    depths = _focus_depths(centers, axes, across) if spread > _MIN_SPREAD else torch.zeros(1)
    closest, farthest = depths.min().item(), depths.max().item()
    if closest <= _MIN_DEPTH_RATIO * farthest:
        raise UserError(
            f"{source}: gives no near and far, and its cameras do not look at a common place from "
            "which they could be estimated. Give near and far in the file, or with --near_far, in "
            "the units of the camera positions."
        )
    near, far = _NEAR_OF_FOCUS * closest, _FAR_OF_FOCUS * farthest
    _LOG.info("%s gives no near and far; estimated %.3g and %.3g", source, near, far)
    return torch.tensor([near, far])


def _focus_depths(
    centers: Float64[Tensor, "view 3"],
    axes: Float64[Tensor, "view 3"],
    across: Float64[Tensor, "view 3 3"],
) -> Float64[Tensor, " view"]:
    """Return the z-depth, in each view, of the point closest to all optical axes."""
    offsets = (across @ centers[:, :, None]).sum(0)[:, 0]
    focus = torch.linalg.solve(across.sum(0), offsets)
    return ((focus - centers) * axes).sum(-1)
