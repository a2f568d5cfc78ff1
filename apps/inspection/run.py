"""One inspection from its settings to its report."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from apps.inspect_data import InspectionConfig
from apps.inspection.checks import SceneChecks, check_scene, damaged_views
from apps.inspection.picture import draw_scene
from datasets.formats.options import ReadOptions
from datasets.formats.registry import FORMATS, is_listed, open_scene
from datasets.formats.scene_lists import SPLITS, Split, find_scene_list
from datasets.photo_folder import spread_evenly
from datasets.posed_scene import PosedScene
from datasets.protocols import assign_roles
from datasets.scene_index import describe, write_index
from models.photo_cameras import ensure_cameras
from utils.errors import UserError

MAX_SIDE = 1000
"""Longer side of the images that are matched."""
_LOG = logging.getLogger(__name__)
_SHOWN = 8
_MOST_SOURCES, _VALIDATION_SOURCES = 4, 3
"""Of configs/vggt_general.txt."""
_LEAST_TO_TRAIN_ON = 2
"""Views that are not held out: one to render, one to render it from."""


@dataclass(frozen=True)
class FoundScene:
    """One scene, as training would read it."""

    folder: Path
    scene: PosedScene
    targets: dict[Split, int]
    """Number of target views in training, validation and test."""


def run_inspection(config: InspectionConfig) -> str:
    """Inspect a data set and return the report."""
    if config.dataset_name == "procedural":
        raise UserError("procedural worlds are made, not read: there is nothing to inspect")
    config = config.recognised()
    ensure_cameras(config)
    scenes, broken = read_scenes(config)
    lines, problems = _contents_lines(config, scenes), [*broken]
    for found in spread_evenly(scenes, config.scenes or len(scenes)):
        name = found.scene.name
        _LOG.info("checking %s", name)
        if damaged := damaged_views(found.scene):
            problems += damaged
            continue
        reduced = _reduced(config, found)
        checks = check_scene(reduced, config.pairs, FORMATS[config.dataset_name].poses)
        lines += _check_lines(found.scene, checks)
        problems += [f"{name}: {problem}" for problem in checks.problems]
        if checks.pair is not None:
            path = Path(config.out) / f"{name}.png"
            draw_scene(reduced, checks.pair, path, f"{name} ({config.dataset_name})")
            lines.append(f"    picture: {path}")
    if problems:
        lines += ["", f"{len(problems)} things are wrong:", *(f"  - {text}" for text in problems)]
        raise UserError("\n".join(lines))
    if config.write_index:
        lines.append(_write_index(config, scenes))
    return "\n".join([*lines, "", advice(config, scenes)])


def read_scenes(config: InspectionConfig) -> tuple[list[FoundScene], list[str]]:
    """Open every scene of a data set; return also what training could not read."""
    name, root = config.dataset_name, config.root
    chosen: dict[Path, list[Split]] = {}
    missing: dict[Split, str] = {}
    for split in SPLITS:
        try:
            for folder in config.scene_folders(split):
                chosen.setdefault(folder, []).append(split)
        except UserError as error:
            missing[split] = f"{split}: {error}"
    # Training reads two of the splits; those who do not evaluate need no scenes for the third.
    broken = [missing[split] for split in SPLITS[:2] if split in missing]
    listed = is_listed(name, root) and not config.scan
    scenes = []
    for folder, splits in chosen.items():
        try:
            scene = open_scene(name, folder, config.options)
        except UserError as error:
            broken.append(str(error))
            continue
        entry = describe(scene, folder)
        targets: dict[Split, int] = {
            split: len(assign_roles(name, entry, split, listed, 1).targets) for split in splits
        }
        scenes.append(FoundScene(folder, scene, targets))
    if not scenes:
        raise UserError(broken[0])
    return scenes, broken


def advice(config: InspectionConfig, scenes: Sequence[FoundScene]) -> str:
    """Return a command that trains on the data set, or renders it if its views are too few."""
    if _fewest_to_train_on(scenes) >= _LEAST_TO_TRAIN_ON:
        return f"ready to train: {training_command(config, scenes)}"
    where = f"--dataset_name {config.dataset_name} --datadir {shlex.quote(config.datadir)}"
    return f"too few views to train on; ready to render: python render_video.py {where}"


def _fewest_to_train_on(scenes: Sequence[FoundScene]) -> int:
    counts = [found.targets["train"] for found in scenes if "train" in found.targets]
    return min(counts or [len(found.scene.view_ids) for found in scenes])


def training_command(config: InspectionConfig, scenes: Sequence[FoundScene]) -> str:
    """Return a command that trains on the data set."""
    words = [
        "python train_vggt_nerf_pl.py --config configs/vggt_general.txt",
        f"--dataset_name {config.dataset_name} --datadir {shlex.quote(config.datadir)}",
    ]
    if config.scan:
        words.append(f"--scan {shlex.quote(config.scan)}")
    sizes = {found.scene.image_size for found in scenes}
    if config.image_size:
        words.append(f"--image_size {config.image_size[0]} {config.image_size[1]}")
    elif len(sizes) == 1 and max(next(iter(sizes))) > 1600:
        height, width = ReadOptions(longest_side=MAX_SIDE).target_size(next(iter(sizes)))
        words.append(f"--image_size {height} {width}")
    if config.near_far:
        # As many digits as were given: the range must pass where this one did.
        words.append(f"--near_far {config.near_far[0]!r} {config.near_far[1]!r}")
    # One of the views that are trained on is the target, the others may be its sources.
    fewest = _fewest_to_train_on(scenes)
    if (sources := fewest - 1) < _MOST_SOURCES:
        words.append(f"--min_sources {min(sources, 2)} --max_sources {sources}")
    if fewest < _VALIDATION_SOURCES:
        words.append(f"--num_source_views {fewest}")
    return " ".join(words)


def _reduced(config: InspectionConfig, found: FoundScene) -> PosedScene:
    size = ReadOptions(longest_side=MAX_SIDE).target_size(found.scene.image_size)
    if size == found.scene.image_size:
        return found.scene
    return open_scene(config.dataset_name, found.folder, replace(config.options, size=size))


def _contents_lines(config: InspectionConfig, scenes: Sequence[FoundScene]) -> list[str]:
    root = config.root
    totals = {split: sum(found.targets.get(split, 0) for found in scenes) for split in SPLITS}
    counted = ", ".join(f"{count} {split}" for split, count in totals.items() if count)
    lists = [path.name for split in SPLITS if (path := find_scene_list(root, split)) is not None]
    how = f"lists {', '.join(dict.fromkeys(lists))}" if lists else "no lists of scenes"
    views = sum(len(found.scene.view_ids) for found in scenes)
    lines = [
        f"{root}: {config.dataset_name}, {len(scenes)} scenes with {views} views ({how}); target "
        f"views: {counted}"
    ]
    for scene in (found.scene for found in scenes[:_SHOWN]):
        height, width = scene.image_size
        near, far = (scene.near_far * scene.unit.factor).tolist()
        neighbours = "by the files" if scene.neighbours else "by camera pose"
        lines.append(
            f"  {scene.name}: {len(scene.view_ids)} views of {width}x{height}, near {near:.4g}, "
            f"far {far:.4g}, neighbours {neighbours}"
        )
    if len(scenes) > _SHOWN:
        lines.append(f"  and {len(scenes) - _SHOWN} more")
    return lines


def _check_lines(scene: PosedScene, checks: SceneChecks) -> list[str]:
    known = float((scene.read_view(scene.view_ids[0]).depth > 0).mean())
    lines = [f"  {scene.name}, checked against its images:"]
    lines += [f"    {fact}" for fact in checks.facts]
    lines.append(f"    depth maps: {f'{known:.0%} of the first' if known else 'none'}")
    return lines + [f"    note: {warning}" for warning in checks.warnings]


def _write_index(config: InspectionConfig, scenes: Sequence[FoundScene]) -> str:
    root = config.root
    if any(found.folder == root for found in scenes):
        return "no index is needed: this is one scene"
    # The index has the sizes on disk, whatever was chosen here.
    name, folders = config.dataset_name, [found.folder for found in scenes]
    entries = [describe(open_scene(name, folder), folder) for folder in folders]
    return f"index: {write_index(name, root, entries)}"
