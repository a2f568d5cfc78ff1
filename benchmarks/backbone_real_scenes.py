"""Cameras and depth of a backbone on photographs: python -m benchmarks.backbone_real_scenes.

For example --vggt_path ckpts/vggt-mini --dtu data/dtu:scan65,scan24 --llff data/llff/fern
--transforms data/fox --out runs_new/real_scenes. The folder receives real_scenes.json and, for
every scene, a picture: photographs, depth (near is bright) and confidence of its first group.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.real_scenes import (
    GroupResult,
    Points,
    RealScene,
    Summary,
    evaluate_scene,
    mean_summary,
    summarize,
)
from datasets.formats.colmap import read_colmap_points
from datasets.formats.options import ReadOptions
from datasets.formats.registry import choose_scenes, open_scene
from datasets.photo_folder import spread_evenly
from datasets.posed_scene import PosedScene
from datasets.protocols import DTU_POOL, DTU_TARGETS, FERN_TARGETS
from datasets.views import Views
from models.vggt.network import VGGT, VGGTPrediction
from utils.devices import choose_devices
from utils.errors import UserError, run_and_report
from utils.files import check_output_folder, write_text
from utils.images import colorize, save_image

logger = logging.getLogger(__name__)

GROUPS = 4
"""Groups of a scene, unless its targets are named."""
MAX_SIDE = 1024
"""Pictures are read at no more than this: more than any network sees, and quick to match."""
COLUMNS = (
    ("auc_5", "AUC@5", 100.0),
    ("auc_30", "AUC@30", 100.0),
    ("rotation_median", "rot deg", 1.0),
    ("direction_median", "dir deg", 1.0),
    ("focal_median", "focal %", 100.0),
    ("abs_rel", "AbsRel", 1.0),
    ("within_103", "<1.03 %", 100.0),
    ("within_125", "<1.25 %", 100.0),
)
"""Metric, heading, factor."""


def read_scenes(arguments: argparse.Namespace) -> list[RealScene]:
    """Read all scenes that the command line names."""
    views = arguments.n_views
    if not 2 <= views <= 8:
        raise UserError(f"--n_views {views}: groups have 2 to 8 views")
    scenes = [scene for spec in arguments.dtu for scene in dtu_scenes(spec, views)]
    scenes += [read_scene("llff", spec, views) for spec in arguments.llff]
    scenes += [read_scene("transforms", spec, views) for spec in arguments.transforms]
    if not scenes:
        raise UserError("no scenes: name some with --dtu, --llff or --transforms")
    names = [real.scene.name for real in scenes]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"two scenes are named {min(twice)!r}; evaluate them separately")
    return scenes


def dtu_scenes(spec: str, num_views: int) -> list[RealScene]:
    """Read scans of a folder in DTU's layout: ``DIR``, or ``DIR:scan65,scan24``."""
    root, names = split_spec(spec)
    scenes = []
    for folder in choose_scenes("dtu", root, ",".join(names)):
        scene = open_scene("dtu", folder)
        whole = set(DTU_TARGETS + DTU_POOL) <= set(scene.view_ids)
        targets, pool = (DTU_TARGETS, DTU_POOL) if whole else ((), ())
        scenes.append(RealScene(scene, plan_groups(scene, num_views, targets, pool), {}))
    return scenes


def read_scene(name: str, spec: str, num_views: int) -> RealScene:
    """Read a scene in some format: ``DIR``, or ``DIR:12,13`` to name the targets."""
    folder, names = split_spec(spec)
    if not all(view.isdecimal() for view in names):
        raise UserError(f"{spec}: the views after the colon must be numbers such as 5,15")
    scene = open_scene(name, folder, ReadOptions(longest_side=MAX_SIDE))
    targets = [int(view) for view in names]
    if not targets and name == "llff" and scene.name == "fern":
        targets = FERN_TARGETS
    points = _colmap_points(folder, scene) if name == "llff" else {}
    return RealScene(scene, plan_groups(scene, num_views, targets), points)


def split_spec(spec: str) -> tuple[Path, list[str]]:
    """Split ``DIR:a,b``; a folder whose own name has a colon is taken whole."""
    folder, colon, names = spec.rpartition(":")
    if not colon or Path(spec).exists():
        return Path(spec), []
    return Path(folder), [name for name in names.split(",") if name]


def plan_groups(
    scene: PosedScene, num_views: int, targets: Sequence[int] = (), pool: Sequence[int] = ()
) -> tuple[tuple[int, ...], ...]:
    """Join every target, by default a few, and the views of the pool nearest to it."""
    targets = targets or spread_evenly(scene.view_ids, GROUPS)
    pool = pool or scene.view_ids
    return tuple((target, *scene.nearest(target, pool, num_views - 1)) for target in targets)


def _colmap_points(folder: Path, scene: PosedScene) -> Points:
    """Return the points of ``sparse/0``, if there are any that belong to these views."""
    model = folder / "sparse" / "0"
    if not (model / "points3D.bin").is_file():
        return {}
    points = read_colmap_points(model)
    if len(points.seen) != len(scene.view_ids):
        counts = len(points.seen), len(scene.view_ids)
        logger.warning("%s: not used, it has %d images and the scene %d", model, *counts)
        return {}
    # Both count in the order of the pictures' names.
    views = zip(scene.view_ids, points.seen, strict=True)
    return {view: points.positions[seen] for view, seen in views}


def evaluate(arguments: argparse.Namespace) -> str:
    """Evaluate the weights on all scenes, write the results, and return a table."""
    start = time.perf_counter()
    scenes = read_scenes(arguments)
    out = check_output_folder(arguments.out, "--out")
    (device,) = choose_devices(arguments.device)
    network = VGGT.from_pretrained(arguments.vggt_path).to(device)
    side, patch = arguments.backbone_size, network.config.patch_size
    if side < patch or side % patch:
        raise UserError(f"--backbone_size {side}: must be a multiple of the patch, {patch}")

    @torch.no_grad()
    def predict(views: Views) -> VGGTPrediction:
        return network(views.images, heads=("camera", "depth"))

    rows = {}
    for real in scenes:
        groups = list(evaluate_scene(predict, real, side, patch, device))
        rows[real.scene.name] = scene_report(groups)
        save_image(out / f"{real.scene.name}.png", picture(groups[0]))
    both = ("network", "trivial")
    means = {who: mean_summary([row[who] for row in rows.values()]) for who in both}
    settings = {**vars(arguments), "device": str(device), "torch": torch.__version__}
    report = {"settings": settings, "scenes": rows, "mean": means}
    write_text(out / "real_scenes.json", json.dumps(report, indent=1) + "\n")
    seconds = time.perf_counter() - start
    return "\n".join([*table({**rows, "mean": means}), f"{seconds:.1f} s; pictures are in {out}"])


def scene_report(groups: Sequence[GroupResult]) -> dict:
    """Return the metrics of one scene and of each of its groups."""
    return {
        "network": summarize([group.errors for group in groups]),
        "trivial": summarize([group.trivial for group in groups]),
        "depth_reference": sorted({group.reference for group in groups}),
        "depth_points": sum(len(group.errors.depth_ratios) for group in groups),
        "groups": [{"views": [*g.view_ids], "network": summarize([g.errors])} for g in groups],
    }


def table(rows: dict[str, dict]) -> Iterator[str]:
    """Yield lines: for every scene the network, then the trivial prediction."""
    width = max(len(name) for name in rows)
    yield f"{'':{width}}         " + "".join(f"{heading:>9}" for _, heading, _ in COLUMNS)
    for name, row in rows.items():
        points = row.get("depth_points")
        reference = f"  {points} points: {', '.join(row['depth_reference'])}" if points else ""
        yield f"{name:{width}} network {_cells(row['network'])}{reference}"
        yield f"{'':{width}} trivial {_cells(row['trivial'])}"


def picture(group: GroupResult) -> Float[Tensor, "3 height width"]:
    """Put the images above their depth above its confidence."""
    depth, confidence = group.prediction.depth, group.prediction.depth_conf
    assert depth is not None and confidence is not None
    rows = [
        torch.cat(list(group.views.images[0]), -1),
        _colored(-torch.cat(list(depth[0, ..., 0].cpu()), -1).log(), "turbo"),
        _colored(torch.cat(list(confidence[0].cpu()), -1).log(), "viridis"),
    ]
    return torch.cat(rows, -2)


def _colored(values: Float[Tensor, "height width"], colors: str) -> Float[Tensor, "3 height width"]:
    """Colour one row of maps over the range of its values, outliers aside."""
    low, high = torch.quantile(values.double(), values.new_tensor([0.02, 0.98]).double()).tolist()
    return colorize(values, low, high, colors)


def _cells(summary: Summary) -> str:
    values = [(summary[name], factor) for name, _, factor in COLUMNS]
    return "".join(
        f"{'-':>9}" if value is None else f"{value * factor:9.{3 if factor == 1 else 1}f}"
        for value, factor in values
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--vggt_path", "--weights", required=True, help="folder with config.json and weights")
    add("--dtu", nargs="+", default=[], help="DIR or DIR:scan65,scan24")
    add("--llff", nargs="+", default=[], help="DIR or DIR:TARGET,TARGET")
    add("--transforms", nargs="+", default=[], help="DIR or DIR:TARGET,TARGET")
    add("--out", required=True, help="folder for the figures and pictures")
    add("--n_views", "--views", type=int, default=4, help="views of a group, 2 to 8")
    add("--backbone_size", "--side", type=int, default=280, help="long side of the network's input")
    add("--device", default="auto", help="where to compute: auto, gpu or cpu")
    arguments = parser.parse_args(argv)
    return run_and_report(lambda: evaluate(arguments))


if __name__ == "__main__":
    sys.exit(main())
