"""Draw a validation figure against the seconds of training, for several general trainings.

For example: python -m benchmarks.training_curves runs_new/vggt_nerf runs_new/mvsnerf
runs_new/points --figure val/PSNR --out asset/training_curves.png. Seconds are those of the clock,
from the first scalar that a run wrote.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import argparse
from pathlib import Path

from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def read_curve(folder: Path, figure: str) -> list[tuple[int, float, float]]:
    """Return step, seconds and value of every validation of a run."""
    events = EventAccumulator(str(folder / "logs"))
    if (folder / "logs").is_dir():
        events.Reload()
    scalars = events.Tags()["scalars"]
    if figure not in scalars:
        raise SystemExit(
            f"{folder}: has no curve {figure}; there are {', '.join(scalars) or 'none'}"
        )
    started = min(events.Scalars(name)[0].wall_time for name in scalars)
    return [(each.step, each.wall_time - started, each.value) for each in events.Scalars(figure)]


def main() -> None:
    """Draw one line for each run, and print its values."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--figure", default="val/PSNR", help="name in TensorBoard")
    parser.add_argument("--out", type=Path, default=Path("results/training_curves.png"))
    arguments = parser.parse_args()
    picture = Figure(figsize=(7, 4), layout="constrained")
    axes = picture.add_subplot()
    for folder in arguments.runs:
        curve = read_curve(folder, arguments.figure)
        _, seconds, values = zip(*curve, strict=True)
        axes.plot(seconds, values, marker="o", markersize=3, label=folder.name)
        print(folder.name, *(f"{step}: {value:.2f} ({at:.0f} s)" for step, at, value in curve))
    axes.set_xlabel("seconds of training, with validation")
    axes.set_ylabel(arguments.figure)
    axes.grid(alpha=0.3)
    axes.legend()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(arguments.out, dpi=120)
    print(arguments.out)


if __name__ == "__main__":
    main()
