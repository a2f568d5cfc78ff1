"""Inspection of a data set: read all scenes, check some of them, report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from apps.inspect_data import InspectionConfig
from apps.inspection.checks import SceneChecks, check_scene, damaged_views
from apps.inspection.scene_figure import draw_scene
from datasets.formats.format_table import FORMATS
from datasets.formats.options import ReadOptions
from datasets.formats.registry import is_listed, open_scene
from datasets.formats.splits import SPLITS, Split, find_scene_list
from datasets.posed_scene import PosedScene
from datasets.protocols import assign_roles
from datasets.scene_index import describe, write_index
from datasets.view_selection import spread_evenly
from models.scenes.photo_cameras import ensure_cameras
from utils.errors import UserError
from utils.files import shell_command

_MAX_SIDE = 1000
"""Longer side of the images that are matched."""
_LOG = logging.getLogger(__name__)
_MAX_LISTED = 8
"""Scenes that the report lists."""
_MAX_SOURCES, _VALIDATION_SOURCES = 4, 3
"""Source views in configs/vggt_general.txt."""
_MIN_TRAINING_VIEWS = 2
"""Views that are not held out: a target and a source."""


@dataclass(frozen=True)
class SceneEntry:
    """A scene as training would read it."""

    folder: Path
    scene: PosedScene
    targets: dict[Split, int]
    """Number of target views in training, validation and test."""


def run_inspection(config: InspectionConfig) -> str:
    """Inspect a data set and return the report."""
    if config.dataset_name == "procedural":
        raise UserError(
            "--dataset_name procedural: worlds are generated, so there is nothing to inspect; "
            "choose a folder with --datadir"
        )
    config = config.recognised()
    ensure_cameras(config)
    scenes, problems = read_scenes(config)
    lines = _contents_lines(config, scenes)
    for entry in spread_evenly(scenes, config.scenes or len(scenes)):
        name = entry.scene.name
        _LOG.info("checking %s", name)
        if damaged := damaged_views(entry.scene):
            problems += damaged
            continue
        scene = _downscaled(config, entry)
        checks = check_scene(scene, config.pairs, FORMATS[config.dataset_name].poses)
        lines += _check_lines(entry.scene, checks)
        problems += [f"{name}: {problem}" for problem in checks.problems]
        if checks.pair is not None:
            path = Path(config.out) / f"{name}.png"
            draw_scene(scene, checks.pair, path, f"{name} ({config.dataset_name})")
            lines.append(f"    figure: {path}")
    if problems:
        lines += ["", f"problems found: {len(problems)}", *(f"  - {text}" for text in problems)]
        raise UserError("\n".join(lines))
    if config.write_index:
        lines.append(_write_index(config, scenes))
    return "\n".join([*lines, "", advice(config, scenes)])


def read_scenes(config: InspectionConfig) -> tuple[list[SceneEntry], list[str]]:
    """Open every scene of a data set; return also the errors that training would meet."""
    name, root = config.dataset_name, config.root
    chosen: dict[Path, list[Split]] = {}
    missing: dict[Split, str] = {}
    for split in SPLITS:
        try:
            for folder in config.scene_folders(split):
                chosen.setdefault(folder, []).append(split)
        except UserError as error:
            missing[split] = f"{split}: {error}"
    # Training reads the first two splits only.
    errors = [missing[split] for split in SPLITS[:2] if split in missing]
    listed = is_listed(name, root) and not config.scan
    scenes = []
    for folder, splits in chosen.items():
        try:
            scene = open_scene(name, folder, config.options)
        except UserError as error:
            errors.append(str(error))
            continue
        entry = describe(scene, folder)
        targets: dict[Split, int] = {
            split: len(assign_roles(name, entry, split, listed, 1).targets) for split in splits
        }
        scenes.append(SceneEntry(folder, scene, targets))
    if not scenes:
        raise UserError(errors[0])
    return scenes, errors


def advice(config: InspectionConfig, scenes: Sequence[SceneEntry]) -> str:
    """Return a training command, or a rendering command if there are too few views."""
    data = ["--dataset_name", config.dataset_name, "--datadir", config.datadir]
    counts = [entry.targets["train"] for entry in scenes if "train" in entry.targets]
    num_views = min(counts or [len(entry.scene.view_ids) for entry in scenes])
    if num_views < _MIN_TRAINING_VIEWS:
        command = shell_command("render_video.py", *data)
        return f"too few views to train on; ready to render: {command}"
    words: list[object] = ["--config", "configs/vggt_general.txt", *data]
    if config.scan:
        words += ["--scan", config.scan]
    sizes = {entry.scene.image_size for entry in scenes}
    if config.image_size:
        words += ["--image_size", *config.image_size]
    elif len(sizes) == 1 and max(next(iter(sizes))) > 1600:
        size = ReadOptions(longest_side=_MAX_SIDE).target_size(next(iter(sizes)))
        words += ["--image_size", *size]
    if config.near_far:
        # Full precision, so that training accepts the range that was accepted here.
        words += ["--near_far", *config.near_far]
    # One of the training views is the target, the others can be its sources.
    if (sources := num_views - 1) < _MAX_SOURCES:
        words += ["--min_sources", min(sources, 2), "--max_sources", sources]
    if num_views < _VALIDATION_SOURCES:
        words += ["--num_source_views", num_views]
    return f"ready to train: {shell_command('train_vggt_nerf_pl.py', *words)}"


def _downscaled(config: InspectionConfig, entry: SceneEntry) -> PosedScene:
    size = ReadOptions(longest_side=_MAX_SIDE).target_size(entry.scene.image_size)
    if size == entry.scene.image_size:
        return entry.scene
    return open_scene(config.dataset_name, entry.folder, replace(config.options, size=size))


def _contents_lines(config: InspectionConfig, scenes: Sequence[SceneEntry]) -> list[str]:
    root = config.root
    totals = {split: sum(entry.targets.get(split, 0) for entry in scenes) for split in SPLITS}
    targets = ", ".join(f"{count} {split}" for split, count in totals.items() if count)
    lists = [path.name for split in SPLITS if (path := find_scene_list(root, split)) is not None]
    source = f"lists {', '.join(dict.fromkeys(lists))}" if lists else "no lists of scenes"
    views = sum(len(entry.scene.view_ids) for entry in scenes)
    lines = [
        f"{root}: {config.dataset_name}, {len(scenes)} scenes with {views} views ({source}); "
        f"target views: {targets}"
    ]
    for scene in (entry.scene for entry in scenes[:_MAX_LISTED]):
        height, width = scene.image_size
        near, far = (scene.near_far * scene.unit.factor).tolist()
        neighbours = "by the files" if scene.neighbours else "by camera pose"
        lines.append(
            f"  {scene.name}: {len(scene.view_ids)} views of {width}x{height}, near {near:.4g}, "
            f"far {far:.4g}, neighbours {neighbours}"
        )
    if len(scenes) > _MAX_LISTED:
        lines.append(f"  and {len(scenes) - _MAX_LISTED} more")
    return lines


def _check_lines(scene: PosedScene, checks: SceneChecks) -> list[str]:
    valid = float((scene.read_view(scene.view_ids[0]).depth > 0).mean())
    lines = [f"  {scene.name}, checked against its images:"]
    lines += [f"    {fact}" for fact in checks.facts]
    lines.append(f"    depth maps: {f'{valid:.0%} of the first is valid' if valid else 'none'}")
    return lines + [f"    note: {warning}" for warning in checks.warnings]


def _write_index(config: InspectionConfig, scenes: Sequence[SceneEntry]) -> str:
    root = config.root
    if any(entry.folder == root for entry in scenes):
        return "no index is needed for a single scene"
    # The index holds the original sizes, so the scenes are opened without options.
    name, folders = config.dataset_name, [entry.folder for entry in scenes]
    entries = [describe(open_scene(name, folder), folder) for folder in folders]
    return f"index: {write_index(name, root, entries)}"
