"""The figures of an evaluation: JSON for programs, a table for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.protocols import SceneTask
from evaluation.rendering import ViewResult
from evaluation.scores import SCORES
from utils.errors import UserError

_SECONDS = ("encode_seconds", "render_seconds")
_FIGURES = (*SCORES, *_SECONDS)
_DIGITS = 6
"""Significant digits that are written: more than the order of additions can change."""
_COLUMNS = (
    ("psnr", "PSNR", 1.0, 2),
    ("ssim", "SSIM", 1.0, 3),
    ("lpips", "LPIPS", 1.0, 3),
    ("depth_abs_err", "depth err", 1.0, 4),
    ("depth_within_0.01", "<0.01 %", 100.0, 1),
    ("depth_within_0.05", "<0.05 %", 100.0, 1),
    ("empty_opacity", "empty", 1.0, 3),
    ("encode_seconds", "encode s", 1.0, 3),
    ("render_seconds", "render s", 1.0, 3),
)
"""Figure, heading, factor, decimals."""

SceneReport = dict[str, Any]
Report = dict[str, Any]


def scene_report(task: SceneTask, results: Sequence[ViewResult]) -> SceneReport:
    """Return the figures of a scene: of each view, and their means."""
    views = []
    for result in results:
        rendered = result.rendered
        seconds = (rendered.encode_seconds, rendered.render_seconds)
        figures = result.scores | dict(zip(_SECONDS, seconds, strict=True))
        views.append(
            {
                "view": result.target,
                "sources": list(result.sources),
                "region": result.region,
                **{name: _rounded(value) for name, value in figures.items()},
            }
        )
    subset = {} if task.subset is None else {"subset": task.subset}
    near, far = task.scene.near_far.tolist()
    size = list(task.scene.image_size)
    setting = {"image_size": size, "near_far": [_rounded(near), _rounded(far)], **subset}
    return {**setting, **mean_figures(views), "views": views}


def full_report(scenes: Mapping[str, SceneReport], settings: Mapping[str, Any]) -> Report:
    """Put scenes together, with their means over all and, if there are any, over each subset.

    Every scene counts the same, however many of its views were rendered.
    """
    subsets = list(dict.fromkeys(row["subset"] for row in scenes.values() if "subset" in row))
    means = {
        subset: mean_figures([row for row in scenes.values() if row.get("subset") == subset])
        for subset in subsets
    }
    report = {"scenes": dict(scenes), "mean": mean_figures(list(scenes.values()))}
    return {**report, **({"subsets": means} if means else {}), "settings": dict(settings)}


def mean_figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the mean of every figure over the rows that have it."""
    means: dict[str, float | None] = {}
    for name in _FIGURES:
        values = [row[name] for row in rows if row[name] is not None]
        means[name] = _rounded(sum(values) / len(values)) if values else None
    return means


def table(report: Report) -> Iterator[str]:
    """Yield lines: the scenes, the subsets, the mean, and which pixels counted."""
    rows = dict(report["scenes"])
    rows |= {f"mean, {name}": row for name, row in report.get("subsets", {}).items()}
    rows["mean"] = report["mean"]
    width = max(len(name) for name in rows)
    yield f"{'':{width}} views" + "".join(f"{heading:>10}" for _, heading, _, _ in _COLUMNS)
    for name, row in rows.items():
        views = str(len(row["views"])) if "views" in row else ""
        yield f"{name:{width}} {views:>5}" + "".join(_cells(row))
    regions = {view["region"] for row in report["scenes"].values() for view in row["views"]}
    yield f"counted: {'; '.join(sorted(regions))}"


def write_json(report: Report, path: Path) -> None:
    """Write a report, whole or not at all.

    Raises:
        UserError: The file cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report, indent=1, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot write the figures ({error.strerror}); make room or choose another "
            "place with --out or --save_dir"
        ) from error


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    for name, _, factor, decimals in _COLUMNS:
        value = row[name]
        yield f"{'-':>10}" if value is None else f"{value * factor:10.{decimals}f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")
