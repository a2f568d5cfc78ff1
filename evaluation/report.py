"""Report of an evaluation: JSON and a text table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.protocols import SceneTask
from evaluation.rendering import ViewResult
from evaluation.scores import SCORES
from utils.files import write_text

_FIGURES = (*SCORES, "encode_seconds", "render_seconds")
_DIGITS = 6
"""Significant digits; the order of summation affects only further ones."""
Column = tuple[str, str, float, int]
"""Column of a table: figure, heading, factor, decimals."""
_COLUMNS = (
    ("view_count", "views", 1.0, 0),
    ("psnr", "PSNR", 1.0, 2),
    ("seen_psnr", "PSNR seen", 1.0, 2),
    ("seen_share", "seen %", 100.0, 1),
    ("ssim", "SSIM", 1.0, 3),
    ("lpips", "LPIPS", 1.0, 3),
    ("depth_abs_err", "depth err", 1.0, 4),
    ("depth_within_0.01", "<0.01 %", 100.0, 1),
    ("depth_within_0.05", "<0.05 %", 100.0, 1),
    ("empty_opacity", "empty", 1.0, 3),
    ("encode_seconds", "encode s", 1.0, 3),
    ("render_seconds", "render s", 1.0, 3),
)

Report = dict[str, Any]
"""Figures of one scene, or of all."""


def scene_report(task: SceneTask, results: Sequence[ViewResult]) -> Report:
    """Return the figures of each view of a scene, and their means."""
    views = []
    for result in results:
        figures = {**vars(result), **result.scores}
        view = {"view": result.target, "sources": list(result.sources), "region": result.region}
        views.append(view | {name: _rounded(figures[name]) for name in _FIGURES})
    return {
        "image_size": list(task.scene.image_size),
        "near_far": [_rounded(depth) for depth in task.scene.near_far.tolist()],
        **({} if task.subset is None else {"subset": task.subset}),
        **mean_figures(views),
        "views": views,
    }


def full_report(scenes: Mapping[str, Report], settings: Mapping[str, Any]) -> Report:
    """Return the reports of all scenes with means over all scenes and over each subset.

    Every scene has the same weight, whatever its number of views.
    """
    subsets: dict[str, list[Report]] = {}
    for row in scenes.values():
        if "subset" in row:
            subsets.setdefault(row["subset"], []).append(row)
    means = {name: mean_figures(rows) for name, rows in subsets.items()}
    report = {"scenes": dict(scenes), "mean": mean_figures(list(scenes.values()))}
    return {**report, **({"subsets": means} if means else {}), "settings": dict(settings)}


def mean_figures(
    rows: Sequence[Mapping[str, Any]], names: Iterable[str] = _FIGURES
) -> dict[str, float | None]:
    """Return the mean of every figure over the rows where it is not None."""
    means: dict[str, float | None] = {}
    for name in names:
        values = [row[name] for row in rows if row[name] is not None]
        means[name] = _rounded(sum(values) / len(values)) if values else None
    return means


def table(report: Report) -> Iterator[str]:
    """Yield the lines of a table of scenes, subsets and mean, and the evaluated regions."""
    scenes = report["scenes"]
    rows = {name: {**row, "view_count": len(row["views"])} for name, row in scenes.items()}
    rows |= {f"mean, {name}": row for name, row in report.get("subsets", {}).items()}
    yield from format_table({**rows, "mean": report["mean"]}, _COLUMNS)
    regions = {view["region"] for row in scenes.values() for view in row["views"]}
    yield f"counted: {'; '.join(sorted(regions))}"


def format_table(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> Iterator[str]:
    """Yield the headings, then label and figures of each row; "-" for a missing figure."""
    cells = [["", *(heading for _, heading, _, _ in columns)]]
    for label, row in rows.items():
        values = [(row.get(name), factor, decimals) for name, _, factor, decimals in columns]
        cells.append([label, *("-" if v is None else f"{v * f:.{d}f}" for v, f, d in values)])
    first, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
    for label, *texts in cells:
        right = (f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))
        yield "  ".join([f"{label:{first}}", *right])


def write_json(report: Report, path: Path) -> None:
    """Write a report atomically."""
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    write_text(path, text, "Free space or choose another place with --out or --save_dir.")


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")
