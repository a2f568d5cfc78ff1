"""One inspection from its settings to its report."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from apps.inspection.checks import SceneChecks, check_scene
from apps.inspection.conventions import Writing
from apps.inspection.picture import draw_scene
from apps.inspection.stock import FoundScene, Stock, take_stock
from datasets.formats.registry import RANGED, ReadOptions, chosen_range
from datasets.scene_index import write_index
from datasets.sources import DataSource
from utils.errors import UserError

_LOG = logging.getLogger(__name__)
_SHOWN = 8


@dataclass(frozen=True)
class InspectionConfig:
    """All settings of ``python -m apps.inspect_data``."""

    dataset_name: Literal[
        "dtu", "blendedmvs", "llff", "blender", "transforms", "colmap", "photos"
    ] = "dtu"
    """Format of the data"""
    datadir: str = "data/dtu"
    """Folder of the data: for dtu all scans, else a scene or a folder of scenes"""
    image_size: tuple[int, ...] = ()
    """Height and width that all but dtu are resized to; none: as the images are"""
    near_far: tuple[float, ...] = ()
    """Nearest and farthest depth for transforms, colmap, blender and photos; none: as the files
    have them"""
    scenes: int = 3
    """Scenes whose cameras are checked against their images, spread over all; 0: all"""
    pairs: int = 8
    """Pairs of views that are matched in each of these"""
    out: str = "results/inspection"
    """Folder for the pictures"""
    write_index: bool = False
    """Write scenes.json into the data folder: training then starts without opening every scene"""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: Names the value.
            UserError: The range is none, or cannot be chosen for this format.
        """
        for name in ("image_size", "near_far"):
            if len(getattr(self, name)) not in (0, 2):
                raise ValueError(f"{name} takes two numbers, got {len(getattr(self, name))}")
        if self.scenes < 0 or self.pairs < 1:
            raise ValueError("scenes must not be negative and pairs must be positive")
        self.source()

    def source(self) -> DataSource:
        """Return what to inspect."""
        size = (self.image_size[0], self.image_size[1]) if self.image_size else None
        options = ReadOptions(size=size, near_far=chosen_range(self.dataset_name, self.near_far))
        return DataSource(self.dataset_name, Path(self.datadir), options=options)


def run_inspection(config: InspectionConfig) -> str:
    """Inspect a data set and return the report.

    Raises:
        UserError: Something is wrong; the message is the whole report with what to mend.
    """
    source = config.source()
    stock = take_stock(source)
    lines = _stock_lines(source, stock)
    problems = [*stock.broken]
    for found in _spread(stock.scenes, config.scenes):
        _LOG.info("checking %s", found.scene.name)
        reduced = found.reduced()
        checks = check_scene(reduced, config.pairs, _writing(source.name), source.name in RANGED)
        lines += _check_lines(found, checks)
        problems += [f"{found.scene.name}: {problem}" for problem in checks.problems]
        if checks.pair is not None:
            path = Path(config.out) / f"{found.scene.name}.png"
            draw_scene(reduced, checks.pair, path, f"{found.scene.name} ({source.name})")
            lines.append(f"    picture: {path}")
    if problems:
        lines += ["", f"{len(problems)} things are wrong:", *(f"  - {text}" for text in problems)]
        raise UserError("\n".join(lines))
    if config.write_index:
        lines.append(_write_index(source, stock))
    return "\n".join([*lines, "", f"ready to train: {training_command(config, stock)}"])


def training_command(config: InspectionConfig, stock: Stock) -> str:
    """Return a command that trains on the data set."""
    words = [
        "python train_vggt_nerf_pl.py --config configs/vggt_general.txt",
        f"--dataset_name {config.dataset_name} --datadir {shlex.quote(config.datadir)}",
    ]
    sizes = {found.scene.image_size for found in stock.scenes}
    if config.image_size:
        words.append(f"--image_size {config.image_size[0]} {config.image_size[1]}")
    elif len(sizes) == 1 and max(next(iter(sizes))) > 1600:
        height, width = next(iter(sizes))
        shrink = 1000 / max(height, width)
        words.append(f"--image_size {round(height * shrink)} {round(width * shrink)}")
    if config.near_far:
        # As many digits as were given: the range must pass where this one did.
        words.append(f"--near_far {config.near_far[0]!r} {config.near_far[1]!r}")
    fewest = min(len(found.scene.view_ids) for found in stock.scenes)
    if fewest < 12:
        words.append("--min_sources 2 --max_sources 3 --num_nearest 3")
    return " ".join(words)


def _stock_lines(source: DataSource, stock: Stock) -> list[str]:
    views = sum(len(found.scene.view_ids) for found in stock.scenes)
    targets: dict[str, int] = {}
    for found in stock.scenes:
        for split, count in found.splits.items():
            targets[split] = targets.get(split, 0) + count
    counted = ", ".join(f"{count} {split}" for split, count in targets.items())
    lines = [
        f"{source.folder}: {source.name}, {len(stock.scenes)} scenes with {views} views "
        f"({stock.listed}); target views: {counted}"
    ]
    for found in stock.scenes[:_SHOWN]:
        scene = found.scene
        height, width = scene.image_size
        near, far = scene.near_far.tolist()
        neighbours = "by the files" if scene.neighbours else "by camera pose"
        lines.append(
            f"  {scene.name}: {len(scene.view_ids)} views of {width}x{height}, near {near:.4g}, "
            f"far {far:.4g}, neighbours {neighbours}"
        )
    if len(stock.scenes) > _SHOWN:
        lines.append(f"  and {len(stock.scenes) - _SHOWN} more")
    return lines


def _check_lines(found: FoundScene, checks: SceneChecks) -> list[str]:
    depth = found.scene.read_view(found.scene.view_ids[0]).depth
    known = float((depth > 0).mean())
    lines = [f"  {found.scene.name}, looked at closely:"]
    lines += [f"    {fact}" for fact in checks.facts]
    lines.append(f"    depth maps: {f'{known:.0%} of the first' if known else 'none'}")
    return lines + [f"    note: {warning}" for warning in checks.warnings]


def _writing(name: str) -> Writing:
    if name == "llff":
        return "llff"
    return "opencv" if name in ("dtu", "blendedmvs", "colmap") else "opengl"


def _write_index(source: DataSource, stock: Stock) -> str:
    entries = [found.entry for found in stock.scenes if found.entry is not None]
    single = [entry for entry in entries if entry.folder == source.folder]
    if single or not entries:
        return "no index is needed: this is one scene, or DTU"
    return f"index: {write_index(source.scene_format, source.folder, entries)}"


def _spread(scenes: Sequence[FoundScene], count: int) -> list[FoundScene]:
    if not 0 < count < len(scenes):
        return list(scenes)
    return [scenes[(2 * n + 1) * len(scenes) // (2 * count)] for n in range(count)]
