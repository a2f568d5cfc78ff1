"""Compare quality and rendering time for several numbers of planes and samples per ray.

For example: python -m benchmarks.samples_table --ckpt ckpts/vggt-mini-nerf --dataset_name llff
--datadir data/nerf_llff_data/fern --out results/fern_samples.json
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import logging
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from datasets.config import DataChoice, HeldOutScenes
from evaluation.config import EvaluationConfig, ModelChoice, SamplingChoice
from evaluation.report import Report, format_table, write_json
from evaluation.run import evaluate
from utils.config import command
from utils.files import check_output_file

logger = logging.getLogger(__name__)

SAMPLINGS = {
    "32 uniform": SamplingChoice(N_planes=48, N_samples=32, sampling_floor=1.0),
    "64+3": SamplingChoice(N_planes=64, N_samples=3),
    "48+8": SamplingChoice(N_planes=48, N_samples=8),
    "48+4": SamplingChoice(N_planes=48, N_samples=4),
    "48+3": SamplingChoice(N_planes=48, N_samples=3),
    "48+2": SamplingChoice(N_planes=48, N_samples=2),
    "16+3": SamplingChoice(N_planes=16, N_samples=3),
}
"""Planes of the coarse volume + samples per ray; a floor of 1 spaces samples and planes evenly."""
COLUMNS = (
    ("psnr", "PSNR", 1.0, 2),
    ("ssim", "SSIM", 1.0, 3),
    ("depth_abs_err", "depth err", 1.0, 4),
    ("render_seconds", "s per view", 1.0, 3),
)


@dataclass(frozen=True)
class SamplesTableConfig:
    """The settings of ``evaluate_vggt_nerf.py`` without those of the sampling."""

    data: DataChoice = field(default_factory=DataChoice)
    held_out: HeldOutScenes = field(default_factory=HeldOutScenes)
    model: ModelChoice = field(default_factory=ModelChoice)
    out: str = "results/samples_table.json"
    """JSON file for the results"""


def run_samples_table(config: SamplesTableConfig) -> str:
    """Evaluate every sampling, write the results, and return a table."""
    out = check_output_file(config.out, "--out")
    reports = {}
    for name, sampling in SAMPLINGS.items():
        logger.info("samples: %s", name)
        reports[name] = evaluate(
            EvaluationConfig(config.data, config.held_out, config.model, sampling)
        )
    rows = {name: report_row(report) for name, report in reports.items()}
    # All rows share the checkpoint and the machine.
    common = next(iter(reports.values()))["settings"]
    names = ("path", "step", "backbone_fingerprint")
    settings = asdict(config) | {name: common[name] for name in ("device", "torch")}
    settings["checkpoint"] = {name: common["checkpoint"][name] for name in names}
    write_json({"rows": rows, "settings": settings}, out)
    lines = {}
    for name, row in rows.items():
        lines[name] = row
        lines |= {f"{name}, {subset}": mean for subset, mean in row.get("subsets", {}).items()}
    return "\n".join([*format_table(lines, COLUMNS), f"the results are in {out}"])


def report_row(report: Report) -> dict[str, Any]:
    """Return the sampling, and the mean metrics of all scenes, of each subset and each scene."""
    rendering = report["settings"]["checkpoint"]["model"]["rendering"]
    sampling = {name: rendering[name] for name in asdict(SamplingChoice())}
    scenes = {
        name: {figure: scene[figure] for figure in report["mean"]}
        for name, scene in report["scenes"].items()
    }
    subsets = {"subsets": report["subsets"]} if "subsets" in report else {}
    return {**sampling, **report["mean"], **subsets, "scenes": scenes}


main = command(SamplesTableConfig, run_samples_table, __doc__)

if __name__ == "__main__":
    sys.exit(main())
