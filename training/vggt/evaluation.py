"""Depth and camera metrics, and the evaluation on held-out procedural scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datasets.procedural.generator import ProceduralGenerator
from datasets.views import Views
from models.vggt.network import VGGT
from models.vggt.pose_encoding import decode_pose
from training.vggt.config import HeldOutConfig
from training.vggt.scenes import held_out_requests
from utils.cameras import Cameras

Maps = Float[Tensor, "scene view height width"]
Poses = Float[Tensor, "scene view 9"]
Pixels = Float[Tensor, "scene pixel"]
Pairs = Float[Tensor, "scene pair"]
Prediction = tuple[Maps, Poses]
"""Depth and pose encodings."""


@torch.no_grad()
def geometry_metrics(depth: Maps, pose_enc: Poses, truth: Views) -> dict[str, Float[Tensor, ""]]:
    """Return the means over the scenes of the metrics of predicted depth and cameras.

    Depth, after median scaling: mean relative error, and shares of pixels within a factor of 1.03
    and 1.25. Cameras: area under the accuracy curve up to 5 and 30 degrees.
    """
    valid = (truth.masks & (truth.depths > 0) & truth.depths.isfinite()).flatten(1)
    ratios = depth_ratios(depth.flatten(1), truth.depths.flatten(1), valid)
    cameras = decode_pose(pose_enc, *truth.size)
    errors = torch.maximum(*pair_errors(cameras, truth.cameras))
    metrics = {
        "abs_rel": _masked_mean((ratios - 1).abs(), valid),
        "within_103": _masked_mean(_within(ratios, 1.03), valid),
        "within_125": _masked_mean(_within(ratios, 1.25), valid),
        "auc_5": area_under_curve(errors, 5),
        "auc_30": area_under_curve(errors, 30),
    }
    return {name: values.mean() for name, values in metrics.items()}


def depth_ratios(depth: Pixels, truth: Pixels, valid: Bool[Tensor, "scene pixel"]) -> Pixels:
    """Return depth / true depth after scaling each scene to equal medians; 1 for invalid pixels."""
    nan = torch.full_like(depth, torch.nan)
    medians = torch.where(valid, depth, nan).nanmedian(1, keepdim=True).values
    true_medians = torch.where(valid, truth, nan).nanmedian(1, keepdim=True).values
    ratios = depth / medians * true_medians / truth
    return torch.where(valid, ratios, 1.0)


def pair_errors(predicted: Cameras, truth: Cameras) -> tuple[Pairs, Pairs]:
    """Return errors in degrees of the relative rotation and translation direction of view pairs.

    As in "PoseDiffusion" (Wang et al., 2023) and "VGGT", the sign of the direction is ignored. A
    zero translation counts as 90 degrees.
    """
    rotations, translations = _relative_poses(predicted)
    true_rotations, true_translations = _relative_poses(truth)
    # By the chord: the arc cosine is inaccurate for small angles.
    chord = torch.linalg.matrix_norm(rotations - true_rotations) / 8**0.5
    rotation_errors = 2 * torch.asin(chord.clamp(max=1.0))
    direction_errors = _line_angles(translations, true_translations)
    return torch.rad2deg(rotation_errors), torch.rad2deg(direction_errors)


def area_under_curve(errors: Pairs, max_degrees: int) -> Float[Tensor, " scene"]:
    """Return the mean share of pairs below the thresholds 1, 2, ... ``max_degrees``."""
    thresholds = torch.arange(1, max_degrees + 1, device=errors.device, dtype=errors.dtype)
    return (errors[..., None] < thresholds).float().mean((-2, -1))


def trivial_prediction(truth: Views) -> Prediction:
    """Return constant depth and identical cameras."""
    pose = truth.depths.new_tensor([0, 0, 0, 0, 0, 0, 1, 1, 1])
    return torch.ones_like(truth.depths), pose.expand(*truth.depths.shape[:2], 9)


def evaluate_held_out(
    predict: Callable[[Views], Prediction],
    scenes: ProceduralGenerator,
    config: HeldOutConfig,
) -> dict[str, float]:
    """Return the mean of every metric over the held-out scenes."""
    rows = []
    for request in held_out_requests(config):
        views = scenes.sample(*request).views
        metrics = geometry_metrics(*predict(views), views)
        rows.append({name: mean * len(request.scene_ids) for name, mean in metrics.items()})
    return {name: float(sum(row[name] for row in rows)) / config.val_scenes for name in rows[0]}


@torch.no_grad()
def predict_geometry(network: VGGT, views: Views) -> Prediction:
    """Predict depth and pose encodings in full precision."""
    prediction = network(views.images, heads=("camera", "depth"))
    return prediction.depth.squeeze(-1), prediction.pose_enc


def comparison_table(
    network: VGGT, scenes: ProceduralGenerator, config: HeldOutConfig
) -> Iterator[str]:
    """Yield the lines of a table of metrics: of the network and of the trivial prediction."""
    ours = evaluate_held_out(partial(predict_geometry, network), scenes, config)
    trivial = evaluate_held_out(trivial_prediction, scenes, config)
    yield f"{'metric':12} {'network':>10} {'trivial':>10}"
    for name, value in ours.items():
        yield f"{name:12} {value:10.4f} {trivial[name]:10.4f}"


def _relative_poses(cameras: Cameras) -> tuple[Tensor, Tensor]:
    views = cameras.shape[1]
    first, second = torch.triu_indices(views, views, offset=1, device=cameras.c2w.device)
    relative = cameras.w2c[:, second] @ cameras.c2w[:, first]
    return relative[..., :3, :3], relative[..., :3, 3]


def _line_angles(a: Tensor, b: Tensor) -> Tensor:
    """Return angles between lines; 90 degrees if ``a`` is zero."""
    angles = torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1).abs())
    return torch.where(a.norm(dim=-1) > 1e-9, angles, torch.pi / 2)


def _within(ratios: Tensor, factor: float) -> Tensor:
    return (torch.maximum(ratios, 1 / ratios) < factor).float()


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum(1) / mask.sum(1).clamp_min(1)
