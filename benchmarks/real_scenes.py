"""Evaluation of a backbone on photographs with known cameras.

Cameras are compared by the relative poses of all pairs of a group of views. Depth is compared at
every pixel of depth maps, else at triangulated points, after median scaling of each group.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from datasets.matching import triangulate_views
from datasets.posed_scene import PosedScene
from datasets.views import Views
from models.vggt.backbone import network_size
from models.vggt.network import VGGTPrediction
from models.vggt.pose_encoding import decode_pose
from training.vggt.evaluation import area_under_curve, depth_ratios, pair_errors, trivial_prediction
from utils.cameras import Cameras, project, resize_intrinsics

logger = logging.getLogger(__name__)

MIN_INSIDE = 0.9
"""Of the points that a view is said to see, the share that must fall into its picture."""

Points = Mapping[int, Float[Tensor, "_ 3"]]
"""By view the points that it sees, in the world."""
Summary = dict[str, float | int | None]
"""Metrics by name; None where there is no reference."""


@dataclass(frozen=True)
class RealScene:
    """A scene, and which of its views are given to the network together."""

    scene: PosedScene
    groups: tuple[tuple[int, ...], ...]
    """Views, the target and frame of reference first."""
    points: Points
    """Of COLMAP; empty if the scene has none."""


@dataclass(frozen=True)
class GroupErrors:
    """Errors of one group of views."""

    rotations: Float[Tensor, " pair"]
    """Degrees."""
    directions: Float[Tensor, " pair"]
    """Degrees between the directions of the translations, whose sign does not count."""
    focals: Float[Tensor, " view"]
    """|focal length / true one - 1|, the mean of both axes."""
    depth_ratios: Float[Tensor, " point"]
    """Depth / true depth after median scaling."""


@dataclass(frozen=True)
class GroupResult:
    """One group, its prediction, and the errors of that and of the trivial one."""

    view_ids: tuple[int, ...]
    views: Views
    """As the network saw them, with one batch axis."""
    prediction: VGGTPrediction
    errors: GroupErrors
    trivial: GroupErrors
    reference: str
    """Where the true depth is from."""


def evaluate_scene(
    predict: Callable[[Views], VGGTPrediction],
    real: RealScene,
    side: int,
    patch: int,
    device: torch.device | str = "cpu",
) -> Iterator[GroupResult]:
    """Yield the result for every group of a scene; the input's longer side has ``side`` pixels."""
    for view_ids in real.groups:
        native = real.scene.load_views(view_ids)
        points, reference = _reference_points(real, view_ids, native)
        views = network_views(native, side, patch)
        prediction = predict(views.to(device))
        assert prediction.depth is not None and prediction.pose_enc is not None
        depth, pose_enc = prediction.depth.squeeze(-1).cpu(), prediction.pose_enc.cpu()
        yield GroupResult(
            view_ids=view_ids,
            views=views,
            prediction=prediction,
            errors=group_errors(depth, pose_enc, views, points),
            trivial=group_errors(*trivial_prediction(views), views, points),
            reference=reference,
        )


def network_views(views: Views, side: int, patch: int) -> Views:
    """Shrink pictures, cameras and depth to the network's input; add a batch axis."""
    height, width = network_size(*views.size, side, patch)
    scale_x, scale_y = width / views.size[1], height / views.size[0]
    images = functional.interpolate(
        views.images, (height, width), mode="bilinear", antialias=True
    ).clamp(0, 1)
    intrinsics = resize_intrinsics(views.cameras.intrinsics, scale_x, scale_y)
    # Depth is taken at the centre of the new pixel, never averaged.
    rows = ((torch.arange(height) + 0.5) / scale_y).long()[:, None]
    columns = ((torch.arange(width) + 0.5) / scale_x).long()
    return Views(
        images[None],
        Cameras(intrinsics, views.cameras.c2w)[None],
        views.depths[:, rows, columns][None],
        views.masks[:, rows, columns][None],
    )


def group_errors(
    depth: Float[Tensor, "1 view height width"],
    pose_enc: Float[Tensor, "1 view 9"],
    truth: Views,
    points: Sequence[Float[Tensor, "_ 3"]] = (),
) -> GroupErrors:
    """Compare the prediction for a group with its cameras, known depth, and points of each view."""
    predicted = decode_pose(pose_enc, *truth.size)
    rotations, directions = pair_errors(predicted, truth.cameras)
    focal, true_focal = (
        cameras.intrinsics[0].diagonal(dim1=-2, dim2=-1)[:, :2]
        for cameras in (predicted, truth.cameras)
    )
    known = truth.masks & (truth.depths > 0) & truth.depths.isfinite()
    samples = [torch.stack([depth[known], truth.depths[known]])]
    samples += [
        _at_points(depth[0, view], truth.cameras[0, view], seen) for view, seen in enumerate(points)
    ]
    values, true_values = torch.cat(samples, 1)[:, None]
    everywhere = torch.ones_like(values, dtype=torch.bool)
    return GroupErrors(
        rotations=rotations[0],
        directions=directions[0],
        focals=(focal / true_focal - 1).abs().mean(-1),
        depth_ratios=depth_ratios(values, true_values, everywhere)[0]
        if len(values[0])
        else values[0],
    )


def summarize(groups: Sequence[GroupErrors]) -> Summary:
    """Return the metrics of all pairs, views and points of some groups together."""
    rotations, directions, focals, ratios = (
        torch.cat([getattr(group, field.name) for group in groups]) for field in fields(GroupErrors)
    )
    errors = torch.maximum(rotations, directions)[None]
    factors = torch.maximum(ratios, 1 / ratios)
    depth = {"abs_rel": (ratios - 1).abs()}
    depth |= {"within_103": (factors < 1.03).float(), "within_125": (factors < 1.25).float()}
    return {
        "auc_5": float(area_under_curve(errors, 5)),
        "auc_30": float(area_under_curve(errors, 30)),
        "rotation_median": float(rotations.median()),
        "direction_median": float(directions.median()),
        "focal_median": float(focals.median()),
        **{name: float(each.mean()) if len(ratios) else None for name, each in depth.items()},
    }


def mean_summary(summaries: Sequence[Summary]) -> Summary:
    """Return the mean of every metric over the scenes that have it."""
    means: Summary = {}
    for name in summaries[0]:
        values = [value for summary in summaries if (value := summary[name]) is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


def _reference_points(
    real: RealScene, view_ids: Sequence[int], views: Views
) -> tuple[Sequence[Float[Tensor, "_ 3"]], str]:
    """Return points with known depth for each view, and where they are from."""
    if (views.depths > 0).any():
        return (), "depth maps"
    points = [real.points.get(view, torch.empty(0, 3)) for view in view_ids]
    expected = sum(len(seen) for seen in points)
    if expected:
        inside = sum(
            len(_at_points(views.depths[place], views.cameras[place], seen)[0])
            for place, seen in enumerate(points)
        )
        if inside > MIN_INSIDE * expected:
            return points, "COLMAP points"
        logger.warning(
            "%s: COLMAP's points are not used, only %d of %d fall into their pictures",
            *(real.scene.name, inside, expected),
        )
    return triangulate_views(views), "triangulated matches"


def _at_points(
    depth: Float[Tensor, "height width"], camera: Cameras, points: Float[Tensor, "point 3"]
) -> Float[Tensor, "2 inside"]:
    """Return depth and the points' own depth where they fall into the picture."""
    pixels, true_depths = project(points, camera)
    height, width = depth.shape
    columns, rows = pixels.floor().long().unbind(-1)
    inside = (true_depths > 0) & (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    values = depth[rows[inside], columns[inside]]
    return torch.stack([values, true_depths[inside]])
