"""Losses of the geometry predicted by VGGT, and their targets.

Wang et al., "VGGT", 2025, section 3.3: a Huber loss on the pose encoding, and for depth and point
maps ``|c * e| + |c * grad e| - alpha * log c`` with error e and predicted confidence c. Differences
to the paper, beside that of ``camera_loss``:

* Errors are relative to the true depth, so that near objects count before a far background.
* Errors grow logarithmically beyond ``ERROR_LIMIT``. This bounds their gradient, since the heads
  predict through an exponential.
* ``ALPHA / MAX_CONFIDENCE`` is added to the error, so that the optimal confidence
  ``ALPHA / (e + ALPHA / MAX_CONFIDENCE)`` is at most ``MAX_CONFIDENCE``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from datasets.views import Views
from models.vggt.network import VGGTPrediction
from models.vggt.pose_encoding import encode_pose
from training.losses import log_bounded, masked_mean
from utils.cameras import Cameras, pixel_grid, unproject

CAMERA_WEIGHT = 2.0
"""Weight of the camera loss, relative to the dense losses."""
ITERATION_DECAY = 0.6
"""Weight of each iteration of the camera head, relative to the next one."""
HUBER_DELTA = 0.01
"""Weighted error of a pose entry beyond which the camera loss is linear."""
TRANSLATION_WEIGHT = 0.25
"""Weight of translations, relative to the cameras' mean distance from the first."""
LEAST_BASELINE = 0.03
"""Lower bound of that distance, in units of the mean point distance."""
FOV_WEIGHT = 0.5
"""Weight of the fields of view within the camera loss."""
GRADIENT_STRIDES = (1, 4)
"""Pixel distances over which the spatial gradient of dense errors is computed."""
ALPHA = 0.2
"""Weight of the logarithm of the confidence."""
MAX_CONFIDENCE = 50.0
"""Optimal confidence of a pixel without error."""
ERROR_LIMIT = 1.0
"""Relative error beyond which the dense losses grow logarithmically."""

Poses = Float[Tensor, "batch view 9"]
Maps = Float[Tensor, "batch view height width"]
Mask = Bool[Tensor, "batch view height width"]


@dataclass(frozen=True)
class GeometryTargets:
    """Ground truth for every head in the first camera's frame; undefined where not ``valid``."""

    pose_enc: Poses
    depth: Maps
    points: Float[Tensor, "batch view height width 3"]
    valid: Mask


@torch.no_grad()
def geometry_targets(views: Views) -> GeometryTargets:
    """Transform scenes to the first camera's frame and to a mean point distance of one.

    Predictions are not normalised: the network learns the unit ("VGGT", section 3.4).
    """
    height, width = views.size
    valid = views.masks & (views.depths > 0) & views.depths.isfinite()
    depths = torch.where(valid, views.depths, 0.0)
    cameras = Cameras(views.cameras.intrinsics, views.cameras[:, :1].w2c @ views.cameras.c2w)
    pixels = pixel_grid(height, width, depths.device)
    points = unproject(pixels, depths.flatten(2), cameras).unflatten(2, (height, width))
    distances = torch.where(valid, points.norm(dim=-1), 0.0).sum((1, 2, 3))
    scale = distances / valid.sum((1, 2, 3)).clamp_min(1)
    factor = 1 / torch.where(scale > 0, scale, 1.0)
    c2w = cameras.c2w.clone()
    c2w[..., :3, 3] *= factor[:, None, None]
    return GeometryTargets(
        pose_enc=encode_pose(Cameras(cameras.intrinsics, c2w), height, width),
        depth=depths * factor[:, None, None, None],
        points=points * factor[:, None, None, None, None],
        valid=valid,
    )


def geometry_losses(
    prediction: VGGTPrediction, targets: GeometryTargets
) -> dict[str, Float[Tensor, ""]]:
    """Return the unweighted terms of all heads and their weighted sum, ``loss``.

    Networks without a point head have no ``points`` term.
    """
    assert prediction.depth is not None and prediction.depth_conf is not None
    camera = camera_loss(prediction.pose_encodings, targets.pose_enc)
    # Bounded for pixels of unknown depth, which is 0; the masks exclude them.
    inverse_depth = 1 / targets.depth.clamp_min(1e-3)
    depth_errors = (prediction.depth - targets.depth[..., None]) * inverse_depth[..., None]
    depth = dense_loss(depth_errors, prediction.depth_conf, targets.valid)
    terms = {"loss": CAMERA_WEIGHT * camera + depth, "camera": camera, "depth": depth}
    if prediction.world_points is not None and prediction.world_points_conf is not None:
        point_errors = (prediction.world_points - targets.points) * inverse_depth[..., None]
        points = dense_loss(point_errors, prediction.world_points_conf, targets.valid)
        terms |= {"loss": terms["loss"] + points, "points": points}
    return terms


def camera_loss(pose_encodings: Sequence[Poses], truth: Poses) -> Float[Tensor, ""]:
    """Return the sum of Huber losses (slope 1) of all iterations; the last one has weight 1.

    Unlike in the paper, translation errors are relative to the baseline, so that they also matter
    for cameras close together before a far background.
    """
    baseline = truth[..., :3].norm(dim=-1).mean(1).clamp_min(LEAST_BASELINE)
    weights = truth.new_ones(len(truth), 1, 9)
    weights[..., :3] = TRANSLATION_WEIGHT / baseline[:, None, None]
    weights[..., 7:] = FOV_WEIGHT
    total = truth.new_zeros(())
    for index, pose in enumerate(reversed(pose_encodings)):
        error = functional.smooth_l1_loss(pose * weights, truth * weights, beta=HUBER_DELTA)
        total = total + ITERATION_DECAY**index * error
    return total


def dense_loss(
    errors: Float[Tensor, "batch view height width channel"],
    confidence: Maps,
    valid: Mask,
) -> Float[Tensor, ""]:
    """Return the loss of relative errors and their spatial gradient, weighted by confidence."""
    errors = torch.where(valid[..., None], errors, 0.0)
    size = log_bounded(torch.linalg.vector_norm(errors, dim=-1), ERROR_LIMIT)
    value = confidence * (size + ALPHA / MAX_CONFIDENCE) - ALPHA * confidence.log()
    loss = masked_mean(value, valid)
    for stride in GRADIENT_STRIDES:
        loss = loss + _gradient_loss(errors, confidence, valid, stride) / len(GRADIENT_STRIDES)
    return loss


def _gradient_loss(errors: Tensor, confidence: Tensor, valid: Tensor, stride: int) -> Tensor:
    """Return the mean change of the error over ``stride`` pixels down and to the right."""
    total = errors.new_zeros(())
    for axis in (2, 3):
        length = errors.shape[axis] - stride
        if length < 1:
            continue
        both = valid.narrow(axis, 0, length) & valid.narrow(axis, stride, length)
        change = errors.narrow(axis, stride, length) - errors.narrow(axis, 0, length)
        size = log_bounded(torch.linalg.vector_norm(change, dim=-1), ERROR_LIMIT)
        total = total + masked_mean(confidence.narrow(axis, 0, length) * size, both)
    return total
