"""Draw PSNR against seconds for fine-tuning runs.

For example: python -m benchmarks.finetuning_curves runs_fine_tuning/fern/vggt_finetune_fern
runs_fine_tuning/fox/vggt_finetune_fox --out asset/finetuning_curves.png
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """Return the validations of a run, in order; of those repeated by a resumed run the last."""
    path = folder / "curve.json"
    if not path.is_file():
        raise SystemExit(f"{path}: no such file; give folders that fine-tuning runs have written")
    rows = {row["step"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
    return [rows[step] for step in sorted(rows)]


def main() -> None:
    """Draw one line for each run, from the general model's PSNR on; time counts everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--out", type=Path, default=Path("results/finetuning_curves.png"))
    arguments = parser.parse_args()
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for folder in arguments.runs:
        curve = read_curve(folder)
        name = f"{folder.parent.name} ({folder.name})"
        points = zip(*((row["seconds"], row["psnr"]) for row in curve), strict=True)
        axes.plot(*points, marker="o", markersize=3, label=name)
        first, last = curve[0], curve[-1]
        print(f"{folder}: {first['psnr']:.2f} -> {last['psnr']:.2f} in {last['seconds']:.0f} s")
    axes.set_xlabel("seconds, reading and encoding included")
    axes.set_ylabel("PSNR of the test views, dB")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=120)
    print(arguments.out)


if __name__ == "__main__":
    main()
