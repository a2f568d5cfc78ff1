"""VGGT's losses, bounded so that no pixel can blow up a run.

Wang et al., "VGGT", 2025, section 3.3: a Huber loss on the pose encoding, and for depth and point
maps ``|c * e| + |c * grad e| - alpha * log c`` with the predicted confidence c. Departures, beside
that of ``camera_loss``:

* Errors are relative to the true depth. In the unit of the mean distance, a scene with a far
  background would leave the objects in front of it next to no say, and depth is judged by its
  relative error anyway.
* Errors grow logarithmically beyond ``error_limit``. The heads answer through an exponential, so
  the gradient of a linear error would grow without bound; this one stays below ``error_limit``.
* ``alpha / max_confidence`` is added to the error. The best confidence for an error e is then
  ``alpha / (e + alpha / max_confidence)``, which never exceeds ``max_confidence``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from models.vggt.network import VGGTPrediction
from training.vggt.targets import GeometryTargets


@dataclass(frozen=True)
class GeometryLossConfig:
    """Weights and bounds of the loss terms."""

    camera_weight: float = 2.0
    """weight of the camera loss"""
    depth_weight: float = 1.0
    """weight of the depth loss"""
    points_weight: float = 1.0
    """weight of the point map loss"""
    gradient_weight: float = 1.0
    """weight of the error's spatial gradient inside the depth and point map losses"""
    gradient_strides: tuple[int, ...] = (1, 4)
    """distances in pixels over which that gradient is taken"""
    iteration_decay: float = 0.6
    """weight of each iteration of the camera head, relative to the next one"""
    huber_delta: float = 0.01
    """weighted error of a pose entry from which on the camera loss is linear"""
    translation_weight: float = 0.25
    """weight of the cameras' translations, relative to their mean distance from the first"""
    least_baseline: float = 0.03
    """that distance is taken to be no smaller than this, in units of the mean point distance"""
    fov_weight: float = 0.5
    """weight of the fields of view within the camera loss"""
    confidence_alpha: float = 0.2
    """reward of the logarithm of the confidence"""
    max_confidence: float = 50.0
    """confidence that pays for a perfect pixel"""
    error_limit: float = 1.0
    """relative error beyond which the dense losses grow logarithmically"""

    def __post_init__(self) -> None:
        """Refuse bounds that bound nothing."""
        bounds = ("huber_delta", "confidence_alpha", "max_confidence", "error_limit")
        for name in (*bounds, "least_baseline"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")


@dataclass(frozen=True)
class GeometryLosses:
    """The terms, unweighted, and their weighted sum."""

    total: Float[Tensor, ""]
    camera: Float[Tensor, ""]
    depth: Float[Tensor, ""]
    points: Float[Tensor, ""]


def geometry_losses(
    prediction: VGGTPrediction, targets: GeometryTargets, config: GeometryLossConfig
) -> GeometryLosses:
    """Compare all heads with the truth."""
    assert prediction.depth is not None and prediction.depth_conf is not None
    assert prediction.world_points is not None and prediction.world_points_conf is not None
    camera = camera_loss(prediction.pose_encodings, targets.pose_enc, config)
    # Depth 0 marks unknown pixels, which do not count.
    inverse_depth = 1 / targets.depth.clamp_min(1e-3)
    depth_errors = (prediction.depth - targets.depth[..., None]) * inverse_depth[..., None]
    point_errors = (prediction.world_points - targets.points) * inverse_depth[..., None]
    depth = dense_loss(depth_errors, prediction.depth_conf, targets.valid, config)
    points = dense_loss(point_errors, prediction.world_points_conf, targets.valid, config)
    total = (
        config.camera_weight * camera + config.depth_weight * depth + config.points_weight * points
    )
    return GeometryLosses(total, camera, depth, points)


def camera_loss(
    pose_encodings: Sequence[Float[Tensor, "batch view 9"]],
    truth: Float[Tensor, "batch view 9"],
    config: GeometryLossConfig,
) -> Float[Tensor, ""]:
    """Huber loss, with slope 1, of every iteration; the last one has weight 1.

    Translations count relative to the cameras' distances from each other. In the unit of the mean
    point distance, cameras that stand close together before a far background would have nothing
    to learn from.
    """
    baseline = truth[..., :3].norm(dim=-1).mean(1).clamp_min(config.least_baseline)
    weights = truth.new_ones(len(truth), 1, 9)
    weights[..., :3] = config.translation_weight / baseline[:, None, None]
    weights[..., 7:] = config.fov_weight
    total = truth.new_zeros(())
    for index, pose in enumerate(reversed(pose_encodings)):
        error = functional.smooth_l1_loss(pose * weights, truth * weights, beta=config.huber_delta)
        total = total + config.iteration_decay**index * error
    return total


def dense_loss(
    errors: Float[Tensor, "batch view height width channel"],
    confidence: Float[Tensor, "batch view height width"],
    valid: Bool[Tensor, "batch view height width"],
    config: GeometryLossConfig,
) -> Float[Tensor, ""]:
    """Weight the size and the roughness of the error by the predicted confidence.

    Args:
        errors: Prediction minus truth, in relative units.
        confidence: From 1 up.
        valid: Pixels that count; zero is returned if there are none.
        config: Bounds and weights.
    """
    errors = torch.where(valid[..., None], errors, 0.0)
    size = bounded(torch.linalg.vector_norm(errors, dim=-1), config.error_limit)
    floor = config.confidence_alpha / config.max_confidence
    value = confidence * (size + floor) - config.confidence_alpha * confidence.log()
    loss = _masked_mean(value, valid)
    for stride in config.gradient_strides:
        rough = _roughness(errors, confidence, valid, stride, config.error_limit)
        loss = loss + config.gradient_weight / len(config.gradient_strides) * rough
    return loss


def bounded(errors: Float[Tensor, "*batch"], limit: float) -> Float[Tensor, "*batch"]:
    """Leave small errors as they are and let those beyond ``limit`` grow logarithmically."""
    return limit * torch.log1p(errors / limit)


def _roughness(
    errors: Tensor, confidence: Tensor, valid: Tensor, stride: int, limit: float
) -> Tensor:
    """Mean change of the error between pixels ``stride`` apart, down and to the right."""
    total = errors.new_zeros(())
    for axis in (2, 3):
        length = errors.shape[axis] - stride
        if length < 1:
            continue
        both = valid.narrow(axis, 0, length) & valid.narrow(axis, stride, length)
        change = errors.narrow(axis, stride, length) - errors.narrow(axis, 0, length)
        size = bounded(torch.linalg.vector_norm(change, dim=-1), limit)
        total = total + _masked_mean(confidence.narrow(axis, 0, length) * size, both)
    return total


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)
