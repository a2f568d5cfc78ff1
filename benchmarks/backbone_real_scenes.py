"""Evaluate a backbone's cameras and depth on photographs.

For example: python -m benchmarks.backbone_real_scenes --datadir data/dtu --scan scan65,scan24 --out
results/backbone. A target and its sources form a group, which is one input of the backbone. Cameras
are compared by the relative poses of all pairs of views in a group. Depth is compared after median
scaling with depth maps, or with points triangulated from matches if there are none. Results are
written to figures.json, together with an image of the first group of each scene: photographs, depth
(near is bright) and confidence.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.config import DataChoice, HeldOutScenes
from datasets.formats.options import ReadOptions
from datasets.matching import triangulate_views
from datasets.protocols import SceneTask
from datasets.views import Views
from evaluation.config import DeviceName
from evaluation.report import Report, format_table, mean_figures, write_json
from evaluation.run import read_tasks
from models.vggt.backbone import check_backbone_size, network_size
from models.vggt.network import VGGT, VGGTPrediction
from models.vggt.pose_encoding import decode_pose
from training.vggt.evaluation import area_under_curve, depth_ratios, pair_errors, trivial_prediction
from utils.cameras import project
from utils.config import command
from utils.devices import choose_devices
from utils.files import check_output_folder
from utils.images import colorize, save_image
from utils.settings import Alias

_MAX_SIDE = 1024
"""Longer side of the images that are matched."""
COLUMNS = (
    ("auc_5", "AUC@5", 100.0, 1),
    ("auc_30", "AUC@30", 100.0, 1),
    ("rotation_median", "rot deg", 1.0, 3),
    ("direction_median", "dir deg", 1.0, 3),
    ("focal_median", "focal %", 100.0, 1),
    ("abs_rel", "AbsRel", 1.0, 3),
    ("within_103", "<1.03 %", 100.0, 1),
    ("within_125", "<1.25 %", 100.0, 1),
    ("depth_pixels", "pixels", 1.0, 0),
)
METRICS = [name for name, *_ in COLUMNS]
PREDICTIONS = ("network", "trivial")


@dataclass(frozen=True)
class RealScenesConfig:
    """All settings."""

    data: DataChoice = field(default_factory=DataChoice)
    held_out: HeldOutScenes = field(default_factory=HeldOutScenes)
    vggt_path: Annotated[str, Alias(("weights",))] = "ckpts/vggt-mini"
    """folder of the backbone: config.json and weights"""
    backbone_size: Annotated[int, Alias(("side",))] = 280
    """longer side of the backbone's input, in pixels"""
    device: DeviceName = "auto"
    """where to compute; auto: on a GPU if there is one"""
    out: str = "results/backbone"
    """folder for figures.json and the images"""


@dataclass(frozen=True)
class GroupErrors:
    """Errors of the prediction for one group of views."""

    rotations: Float[Tensor, " pair"]
    """Relative rotation errors in degrees."""
    directions: Float[Tensor, " pair"]
    """Angles between the translation directions in degrees, ignoring their sign."""
    focals: Float[Tensor, " view"]
    """Relative errors of the focal length, averaged over both axes."""
    depth_ratios: Float[Tensor, " pixel"]
    """Depth / true depth after median scaling, at pixels with known depth."""


@dataclass(frozen=True)
class GroupResult:
    """One group of views, its prediction, and the errors of the network and of a trivial one."""

    view_ids: tuple[int, ...]
    """The first is the target, which is the frame of reference."""
    views: Views
    """At the size of the network's input."""
    prediction: VGGTPrediction
    network: GroupErrors
    trivial: GroupErrors
    reference: str
    """Source of the true depth."""


def run_benchmark(config: RealScenesConfig) -> str:
    """Evaluate the backbone on all scenes, write the results, and return a table."""
    check_backbone_size(config.backbone_size, config.vggt_path)
    out = check_output_folder(config.out, "--out")
    (device,) = choose_devices(config.device)
    network = VGGT.from_pretrained(config.vggt_path).to(device)
    patch = network.config.patch_size

    @torch.no_grad()
    def predict(views: Views) -> VGGTPrediction:
        return network(views.to(device).images, heads=("camera", "depth"))

    scenes: dict[str, Report] = {}
    for task in read_tasks(config.data, config.held_out, device):
        groups = list(evaluate_groups(predict, task, config.backbone_size, patch))
        scenes[task.scene.name] = scene_report(groups)
        save_image(out / f"{task.scene.name}.png", group_image(groups[0]))
    mean = {
        kind: mean_figures([row[kind] for row in scenes.values()], METRICS) for kind in PREDICTIONS
    }
    settings = {**asdict(config), "device": str(device), "torch": torch.__version__}
    write_json({"settings": settings, "scenes": scenes, "mean": mean}, out / "figures.json")
    rows = {
        f"{name} {kind}": row[kind]
        for name, row in {**scenes, "mean": mean}.items()
        for kind in PREDICTIONS
    }
    references = sorted({row["depth_reference"] for row in scenes.values()})
    notes = [f"true depth: {', '.join(references)}", f"the images are in {out}"]
    return "\n".join([*format_table(rows, COLUMNS), *notes])


def evaluate_groups(
    predict: Callable[[Views], VGGTPrediction], task: SceneTask, side: int, patch: int
) -> Iterator[GroupResult]:
    """Yield the result of every target with its sources, at an input of longer side ``side``."""
    for target, sources in zip(task.targets, task.sources, strict=True):
        native = task.scene.load_views((target, *sources))
        views = native.resized(network_size(*native.size, side, patch))
        reference = "depth maps"
        if not (views.depths > 0).any():
            views, reference = with_matched_depth(views, native), "triangulated matches"
        prediction = predict(views[None])
        assert prediction.depth is not None and prediction.pose_enc is not None
        depth, pose_enc = prediction.depth.squeeze(-1).cpu(), prediction.pose_enc.cpu()
        yield GroupResult(
            view_ids=(target, *sources),
            views=views,
            prediction=prediction,
            network=group_errors(depth, pose_enc, views[None]),
            trivial=group_errors(*trivial_prediction(views[None]), views[None]),
            reference=reference,
        )


def with_matched_depth(views: Views, native: Views) -> Views:
    """Set sparse depth maps from points triangulated in the original images.

    The nearest point is taken if several fall into one pixel.
    """
    size = ReadOptions(longest_side=_MAX_SIDE).target_size(native.size)
    (height, width), depths = views.size, torch.zeros_like(views.depths)
    for view, points in enumerate(triangulate_views(native.resized(size))):
        pixels, z = project(points, views.cameras[view])
        columns, rows = pixels.floor().long().unbind(-1)
        inside = (z > 0) & (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        indices = (rows * width + columns)[inside]
        depths[view].view(-1).scatter_reduce_(0, indices, z[inside], "amin", include_self=False)
    return replace(views, depths=depths)


def group_errors(
    depth: Float[Tensor, "1 view height width"], pose_enc: Float[Tensor, "1 view 9"], truth: Views
) -> GroupErrors:
    """Compare the prediction for a group with its true cameras and known depth."""
    predicted = decode_pose(pose_enc, *truth.size)
    rotations, directions = pair_errors(predicted, truth.cameras)
    focal, true_focal = (
        cameras.intrinsics[0].diagonal(dim1=-2, dim2=-1)[:, :2]
        for cameras in (predicted, truth.cameras)
    )
    known = (truth.masks & (truth.depths > 0) & truth.depths.isfinite()).flatten(1)
    ratios = depth_ratios(depth.flatten(1), truth.depths.flatten(1), known)
    focals = (focal / true_focal - 1).abs().mean(-1)
    return GroupErrors(rotations[0], directions[0], focals, ratios[known])


def summarize(groups: Sequence[GroupErrors]) -> dict[str, float | None]:
    """Return the metrics over all pairs, views and pixels of the groups.

    Depth metrics are None where no depth is known.
    """
    rotations, directions, focals, ratios = (
        torch.cat([getattr(group, each.name) for group in groups]) for each in fields(GroupErrors)
    )
    errors = torch.maximum(rotations, directions)[None]
    factors = torch.maximum(ratios, 1 / ratios)
    values = {
        "auc_5": area_under_curve(errors, 5),
        "auc_30": area_under_curve(errors, 30),
        "rotation_median": rotations.median(),
        "direction_median": directions.median(),
        "focal_median": focals.median(),
        "abs_rel": (ratios - 1).abs().mean(),
        "within_103": (factors < 1.03).float().mean(),
        "within_125": (factors < 1.25).float().mean(),
    }
    # The mean of an empty tensor is NaN.
    metrics = {name: None if value.isnan() else float(value) for name, value in values.items()}
    return {**metrics, "depth_pixels": len(ratios)}


def scene_report(groups: Sequence[GroupResult]) -> Report:
    """Return the metrics of one scene and of each of its groups."""
    return {
        **{kind: summarize([getattr(group, kind) for group in groups]) for kind in PREDICTIONS},
        "depth_reference": ", ".join(sorted({group.reference for group in groups})),
        "groups": [{"views": [*g.view_ids], "network": summarize([g.network])} for g in groups],
    }


def group_image(group: GroupResult) -> Float[Tensor, "3 height width"]:
    """Arrange images, depth and confidence in three rows."""
    depth, confidence = group.prediction.depth, group.prediction.depth_conf
    assert depth is not None and confidence is not None
    rows = [
        torch.cat(list(group.views.images), -1),
        _colorize_range(-torch.cat(list(depth[0, ..., 0].cpu()), -1).log(), "turbo"),
        _colorize_range(torch.cat(list(confidence[0].cpu()), -1).log(), "viridis"),
    ]
    return torch.cat(rows, -2)


def _colorize_range(
    values: Float[Tensor, "height width"], colors: str
) -> Float[Tensor, "3 height width"]:
    """Map values to colours between their 2 % and 98 % quantiles."""
    low, high = torch.quantile(values.double(), values.new_tensor([0.02, 0.98]).double()).tolist()
    return colorize(values, low, high, colors)


main = command(RealScenesConfig, run_benchmark, __doc__)

if __name__ == "__main__":
    sys.exit(main())
