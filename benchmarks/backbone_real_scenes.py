"""Cameras and depth of a backbone on photographs: python -m benchmarks.backbone_real_scenes.

For example --weights ckpts/vggt-mini --dtu data/dtu:scan65,scan24 --llff data/llff/fern
--transforms data/fox --out runs_new/real_scenes. The folder receives real_scenes.json and, for
every scene, a picture: photographs, depth (near is bright) and confidence of its first group.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.views import Views
from models.vggt.network import VGGT, VGGTPrediction
from training.vggt.real_evaluation import (
    GroupResult,
    Summary,
    evaluate_scene,
    mean_summary,
    summarize,
)
from training.vggt.real_scenes import (
    RealScene,
    dtu_scenes,
    llff_scene,
    transforms_scene,
)
from utils.console import run_and_report
from utils.errors import UserError
from utils.files import check_output_folder
from utils.images import colorize, save_image

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
    """Read all scenes that the command line names.

    Raises:
        UserError: There are none, or two of one name, or one cannot be used.
    """
    if not 2 <= arguments.views <= 8:
        raise UserError(f"--views {arguments.views}: groups have 2 to 8 views")
    scenes = [scene for spec in arguments.dtu for scene in dtu_scenes(spec, arguments.views)]
    scenes += [llff_scene(spec, arguments.views) for spec in arguments.llff]
    scenes += [transforms_scene(spec, arguments.views) for spec in arguments.transforms]
    if not scenes:
        raise UserError("no scenes: name some with --dtu, --llff or --transforms")
    names = [scene.name for scene in scenes]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"two scenes are named {min(twice)!r}; judge them separately")
    return scenes


def evaluate(arguments: argparse.Namespace) -> str:
    """Judge the weights on all scenes, write everything, and return a table."""
    start = time.perf_counter()
    scenes = read_scenes(arguments)
    out = check_output_folder(arguments.out)
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    network = VGGT.from_pretrained(arguments.weights).to(device)
    patch = network.config.patch_size
    if arguments.side < patch or arguments.side % patch:
        raise UserError(f"--side {arguments.side}: must be a multiple of the patch, {patch}")

    @torch.no_grad()
    def predict(views: Views) -> VGGTPrediction:
        return network(views.images, heads=("camera", "depth"))

    rows = {}
    for scene in scenes:
        groups = list(evaluate_scene(predict, scene, arguments.side, patch, device))
        rows[scene.name] = scene_report(groups)
        save_image(out / f"{scene.name}.png", picture(groups[0]))
    means = {
        who: mean_summary([row[who] for row in rows.values()]) for who in ("network", "trivial")
    }
    settings = {**vars(arguments), "device": str(device), "torch": torch.__version__}
    report = {"settings": settings, "scenes": rows, "mean": means}
    (out / "real_scenes.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    seconds = time.perf_counter() - start
    return "\n".join([*table({**rows, "mean": means}), f"{seconds:.1f} s; pictures are in {out}"])


def scene_report(groups: Sequence[GroupResult]) -> dict:
    """Return the metrics of one scene and of each of its groups."""
    return {
        "network": summarize([group.errors for group in groups]),
        "trivial": summarize([group.trivial for group in groups]),
        "depth_reference": sorted({group.reference for group in groups}),
        "depth_points": sum(len(group.errors.depth_ratios) for group in groups),
        "groups": [
            {"views": list(group.view_ids), "network": summarize([group.errors])}
            for group in groups
        ],
    }


def table(rows: dict[str, dict]) -> Iterator[str]:
    """Yield lines: for every scene the network, then knowing nothing."""
    width = max(len(name) for name in rows)
    yield f"{'':{width}}         " + "".join(f"{heading:>9}" for _, heading, _ in COLUMNS)
    for name, row in rows.items():
        yield f"{name:{width}} network {_cells(row['network'])}  {_reference(row)}".rstrip()
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
    """Colour one row of maps by what is common in it, outliers aside."""
    low, high = torch.quantile(values.double(), values.new_tensor([0.02, 0.98]).double()).tolist()
    return colorize(values, low, high, colors)


def _cells(summary: Summary) -> str:
    values = [(summary[name], factor) for name, _, factor in COLUMNS]
    return "".join(
        f"{'-':>9}" if value is None else f"{value * factor:9.{3 if factor == 1 else 1}f}"
        for value, factor in values
    )


def _reference(row: dict) -> str:
    if not row.get("depth_points"):
        return ""
    return f"{row['depth_points']} points: {', '.join(row['depth_reference'])}"


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, help="folder with config.json and weights")
    parser.add_argument("--dtu", nargs="+", default=[], help="DIR or DIR:scan65,scan24")
    parser.add_argument("--llff", nargs="+", default=[], help="DIR or DIR:TARGET,TARGET")
    parser.add_argument("--transforms", nargs="+", default=[], help="DIR or DIR:TARGET,TARGET")
    parser.add_argument("--out", required=True, help="folder for the figures and pictures")
    parser.add_argument("--views", type=int, default=4, help="views of a group, 2 to 8")
    parser.add_argument("--side", type=int, default=280, help="long side that the network sees")
    parser.add_argument("--device", default=None, help="where to predict; a GPU if there is one")
    arguments = parser.parse_args(argv)
    return run_and_report(lambda: evaluate(arguments))


if __name__ == "__main__":
    sys.exit(main())
