"""Measure the depth prior of source views: python -m benchmarks.prior_depth.

Compares the backbone's depth, scaled to the given cameras, before and after its refinement by a
cost volume per source view, on held-out procedural worlds or on any data with depth maps. The
weighted error weights each pixel by its confidence.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys
from dataclasses import dataclass, field

import torch
from torch.nn import functional

from datasets.config import DataChoice, DatasetName, HeldOutScenes
from datasets.views import Views
from evaluation.config import DEFAULT_CKPT, RenderingModel
from evaluation.report import format_table, mean_figures
from evaluation.run import read_tasks
from models.checkpoints.general import read_checkpoint
from models.depth_prior import DepthPrior
from utils.config import command
from utils.devices import choose_devices
from utils.errors import UserError

METRICS = ("AbsRel", "median", "<3 %", "confidence", "AbsRel, weighted")


@dataclass(frozen=True)
class DepthData(DataChoice):
    """The data, by default procedural worlds."""

    dataset_name: DatasetName = "procedural"


@dataclass(frozen=True)
class PriorDepthConfig(RenderingModel):
    """All settings."""

    data: DepthData = field(default_factory=DepthData)
    held_out: HeldOutScenes = field(default_factory=HeldOutScenes)
    ckpt: str = DEFAULT_CKPT
    """general checkpoint; for a folder the newest in it"""


def prior_metrics(prior: DepthPrior, truth: Views) -> dict[str, float]:
    """Return relative depth errors at pixels with known depth, and the mean confidence."""
    known = truth.masks & (truth.depths > 0)
    predicted, confidence = (
        functional.interpolate(maps, truth.size, mode="nearest-exact")[known]
        for maps in prior.depth_and_confidence().unbind(2)
    )
    error = (predicted - truth.depths[known]).abs() / truth.depths[known]
    weighted = (error * confidence).sum() / confidence.sum().clamp_min(1e-6)
    close = 100 * (error < 0.03).float().mean()
    values = error.mean(), error.median(), close, confidence.mean(), weighted
    return {name: value.item() for name, value in zip(METRICS, values, strict=True)}


@torch.no_grad()
def run_benchmark(config: PriorDepthConfig) -> str:
    """Measure the source views of all targets and return a table of the means."""
    (device,) = choose_devices(config.device)
    model = read_checkpoint(config.ckpt).with_overrides(config.vggt_path).build_model(device)
    rows: dict[str, list[dict[str, float]]] = {"backbone": [], "refined": []}
    for task in read_tasks(config.data, config.held_out, device):
        near_far = task.scene.near_far[None].to(device)
        for sources in task.sources:
            views = task.scene.load_views(sources)[None].to(device)
            if not (views.masks & (views.depths > 0)).any():
                raise UserError(
                    f"--datadir {config.data.datadir}: views {sources} of {task.scene.name!r} have "
                    "no depth; choose data with depth maps, or --dataset_name procedural"
                )
            for name, metrics in rows.items():
                with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
                    scene = model.encode(views, near_far, refine=name == "refined")
                metrics.append(prior_metrics(scene.prior, views))
    means = {name: mean_figures(metrics, METRICS) for name, metrics in rows.items()}
    table = format_table(means, [(name, name, 1.0, 3) for name in METRICS])
    return "\n".join([*table, f"means over the sources of {len(rows['refined'])} targets"])


main = command(PriorDepthConfig, run_benchmark, __doc__)

if __name__ == "__main__":
    sys.exit(main())
