"""Plot a validation metric against seconds for general trainings and fine-tuning runs.

For example: python -m benchmarks.training_curves runs_new/vggt_nerf runs_new/mvsnerf --metric
val/PSNR --out asset/training_curves.png. Time starts at the first scalar of a general training, and
at the start of a fine-tuning run, whose metric is the PSNR of its test views.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import argparse
import json
from pathlib import Path

from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

Curve = list[tuple[int, float, float]]
"""Step, seconds and value of each validation."""


def read_curve(folder: Path, metric: str) -> Curve:
    """Read the validations of a run in order; repeated steps of a resumed run count once."""
    path = folder / "curve.json"
    if path.is_file():
        rows = {row["step"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
        return [(step, rows[step]["seconds"], rows[step]["psnr"]) for step in sorted(rows)]
    events = EventAccumulator(str(folder / "logs"))
    if (folder / "logs").is_dir():
        events.Reload()
    scalars = events.Tags()["scalars"]
    if metric not in scalars:
        raise SystemExit(
            f"{folder}: has no curve.json, and {metric} is not among the scalars in its logs "
            f"({', '.join(scalars) or 'none'}); give the folder of a run, or another --metric"
        )
    start = min(events.Scalars(name)[0].wall_time for name in scalars)
    return [(event.step, event.wall_time - start, event.value) for event in events.Scalars(metric)]


def main() -> None:
    """Plot one line per run and print its first and last value."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--metric", default="val/PSNR", help="scalar of a general training")
    parser.add_argument("--out", type=Path, default=Path("results/training_curves.png"))
    arguments = parser.parse_args()
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for folder in arguments.runs:
        curve = read_curve(folder, arguments.metric)
        _, seconds, values = zip(*curve, strict=True)
        axes.plot(seconds, values, marker="o", markersize=3, label="/".join(folder.parts[-2:]))
        print(f"{folder}: {values[0]:.2f} -> {values[-1]:.2f} in {seconds[-1]:.0f} s")
    axes.set_xlabel("seconds, including validation")
    axes.set_ylabel(arguments.metric)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=120)
    print(arguments.out)


if __name__ == "__main__":
    main()
