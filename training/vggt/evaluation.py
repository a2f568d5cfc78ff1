"""Depth and camera errors, and the evaluation on procedural scenes that training never sees."""

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
    """Compare predicted depth and cameras with the truth; return means over the scenes.

    Depth, after median scaling: its mean relative error, and the shares of pixels that are right up
    to a factor of 1.03 and 1.25. Cameras: area under the accuracy curve up to 5 and 30 degrees.
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
    """Divide depth by true depth, after one factor per scene has made their medians equal.

    Invalid pixels, and all pixels of a scene without valid ones, get a ratio of 1.
    """
    nothing = torch.full_like(depth, torch.nan)
    medians = torch.where(valid, depth, nothing).nanmedian(1, keepdim=True).values
    true_medians = torch.where(valid, truth, nothing).nanmedian(1, keepdim=True).values
    ratios = depth / medians * true_medians / truth
    return torch.where(valid, ratios, 1.0)


def pair_errors(predicted: Cameras, truth: Cameras) -> tuple[Pairs, Pairs]:
    """Return rotation and translation-direction errors of all pairs of views, in degrees.

    As in "PoseDiffusion" (Wang et al., 2023) and "VGGT", relative poses are compared, and the
    sign of a translation's direction is ignored. No predicted translation counts as 90 degrees.
    """
    rotations, translations = _relative_poses(predicted)
    true_rotations, true_translations = _relative_poses(truth)
    # Via the chord, which is accurate for small angles where the arc cosine is not.
    chord = torch.linalg.matrix_norm(rotations - true_rotations) / 8**0.5
    rotation_errors = 2 * torch.asin(chord.clamp(max=1.0))
    direction_errors = _line_angles(translations, true_translations)
    return torch.rad2deg(rotation_errors), torch.rad2deg(direction_errors)


def area_under_curve(errors: Pairs, max_degrees: int) -> Float[Tensor, " scene"]:
    """Average, over the thresholds 1, 2, ... ``max_degrees``, the share of pairs below each."""
    thresholds = torch.arange(1, max_degrees + 1, device=errors.device, dtype=errors.dtype)
    return (errors[..., None] < thresholds).float().mean((-2, -1))


def trivial_prediction(truth: Views) -> Prediction:
    """Return one depth everywhere, and identical cameras."""
    pose = truth.depths.new_tensor([0, 0, 0, 0, 0, 0, 1, 1, 1])
    return torch.ones_like(truth.depths), pose.expand(*truth.depths.shape[:2], 9)


def evaluate_held_out(
    predict: Callable[[Views], Prediction],
    scenes: ProceduralGenerator,
    config: HeldOutConfig,
) -> dict[str, float]:
    """Return the mean of every metric over the held-out scenes that ``scenes`` renders."""
    rows = []
    for request in held_out_requests(config):
        views = scenes.sample(*request).views
        metrics = geometry_metrics(*predict(views), views)
        rows.append({name: mean * len(request.scene_ids) for name, mean in metrics.items()})
    return {name: float(sum(row[name] for row in rows)) / config.val_scenes for name in rows[0]}


@torch.no_grad()
def predict_geometry(network: VGGT, views: Views) -> Prediction:
    """Predict in full precision."""
    prediction = network(views.images, heads=("camera", "depth"))
    return prediction.depth.squeeze(-1), prediction.pose_enc


def comparison_table(
    network: VGGT, scenes: ProceduralGenerator, config: HeldOutConfig
) -> Iterator[str]:
    """Yield the lines of a table of the network's metrics beside the trivial ones."""
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
    angles = torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1).abs())
    return torch.where(a.norm(dim=-1) > 1e-9, angles, torch.pi / 2)


def _within(ratios: Tensor, factor: float) -> Tensor:
    return (torch.maximum(ratios, 1 / ratios) < factor).float()


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum(1) / mask.sum(1).clamp_min(1)
