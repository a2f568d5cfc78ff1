"""Cameras and depth of a backbone on photographs: python -m benchmarks.backbone_real_scenes.

For example --datadir data/dtu --scan scan65,scan24 --vggt_path ckpts/vggt-mini --out
results/backbone. Every target of the data and its sources are seen together. Cameras are compared
by the relative poses of all pairs of these views; depth, after median scaling, with depth maps or,
where there are none, with points that are triangulated from matches. The folder receives
figures.json and, for every scene, a picture: photographs, depth (near is bright) and confidence of
its first group.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys
import time
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

MAX_SIDE = 1024
"""Longer side of the pictures that are matched."""
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
BOTH = ("network", "trivial")


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
    """folder for the figures and pictures"""


@dataclass(frozen=True)
class GroupErrors:
    """Errors of one group of views."""

    rotations: Float[Tensor, " pair"]
    """Degrees."""
    directions: Float[Tensor, " pair"]
    """Degrees between the directions of the translations, whose sign does not count."""
    focals: Float[Tensor, " view"]
    """|focal length / true one - 1|, the mean of both axes."""
    depth_ratios: Float[Tensor, " pixel"]
    """Depth / true depth after median scaling, where that is known."""


@dataclass(frozen=True)
class GroupResult:
    """One group, its prediction, and the errors of that and of the trivial one."""

    view_ids: tuple[int, ...]
    """The target first, which is the frame of reference."""
    views: Views
    """As the network saw them."""
    prediction: VGGTPrediction
    network: GroupErrors
    trivial: GroupErrors
    reference: str
    """Where the true depth is from."""


def run_benchmark(config: RealScenesConfig) -> str:
    """Evaluate the backbone on all scenes, write the results, and return a table."""
    start = time.perf_counter()
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
        save_image(out / f"{task.scene.name}.png", picture(groups[0]))
    mean = {who: mean_figures([row[who] for row in scenes.values()], METRICS) for who in BOTH}
    settings = {**asdict(config), "device": str(device), "torch": torch.__version__}
    write_json({"settings": settings, "scenes": scenes, "mean": mean}, out / "figures.json")
    rows = {**scenes, "mean": mean}.items()
    table = format_table({f"{name} {who}": row[who] for name, row in rows for who in BOTH}, COLUMNS)
    references = sorted({row["depth_reference"] for row in scenes.values()})
    seconds = time.perf_counter() - start
    notes = [f"true depth: {', '.join(references)}", f"{seconds:.1f} s; pictures are in {out}"]
    return "\n".join([*table, *notes])


def evaluate_groups(
    predict: Callable[[Views], VGGTPrediction], task: SceneTask, side: int, patch: int
) -> Iterator[GroupResult]:
    """Yield the result for every target with its sources; the input's longer side is ``side``."""
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
    """Give views depth at the points that matches of their originals fix; the nearest counts."""
    size = ReadOptions(longest_side=MAX_SIDE).target_size(native.size)
    (height, width), depths = views.size, torch.zeros_like(views.depths)
    for view, points in enumerate(triangulate_views(native.resized(size))):
        pixels, z = project(points, views.cameras[view])
        columns, rows = pixels.floor().long().unbind(-1)
        inside = (z > 0) & (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        places = (rows * width + columns)[inside]
        depths[view].view(-1).scatter_reduce_(0, places, z[inside], "amin", include_self=False)
    return replace(views, depths=depths)


def group_errors(
    depth: Float[Tensor, "1 view height width"], pose_enc: Float[Tensor, "1 view 9"], truth: Views
) -> GroupErrors:
    """Compare the prediction for a group with its cameras and known depth."""
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
    """Return the metrics of all pairs, views and pixels of some groups together.

    Those of depth are None where none is known.
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
    # The mean of nothing is NaN.
    found = {name: None if value.isnan() else float(value) for name, value in values.items()}
    return {**found, "depth_pixels": len(ratios)}


def scene_report(groups: Sequence[GroupResult]) -> Report:
    """Return the metrics of one scene and of each of its groups."""
    return {
        **{who: summarize([getattr(group, who) for group in groups]) for who in BOTH},
        "depth_reference": ", ".join(sorted({group.reference for group in groups})),
        "groups": [{"views": [*g.view_ids], "network": summarize([g.network])} for g in groups],
    }


def picture(group: GroupResult) -> Float[Tensor, "3 height width"]:
    """Put the images above their depth above its confidence."""
    depth, confidence = group.prediction.depth, group.prediction.depth_conf
    assert depth is not None and confidence is not None
    rows = [
        torch.cat(list(group.views.images), -1),
        _colored(-torch.cat(list(depth[0, ..., 0].cpu()), -1).log(), "turbo"),
        _colored(torch.cat(list(confidence[0].cpu()), -1).log(), "viridis"),
    ]
    return torch.cat(rows, -2)


def _colored(values: Float[Tensor, "height width"], colors: str) -> Float[Tensor, "3 height width"]:
    """Colour one row of maps over the range of its values, outliers aside."""
    low, high = torch.quantile(values.double(), values.new_tensor([0.02, 0.98]).double()).tolist()
    return colorize(values, low, high, colors)


main = command(RealScenesConfig, run_benchmark, __doc__)

if __name__ == "__main__":
    sys.exit(main())
