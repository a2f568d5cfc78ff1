"""Scenes of all formats: how a folder is recognised, listed and read.

This module does not import torch, so that settings can refer to it.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.formats.foreign import describe_foreign
from datasets.formats.format_table import FORMATS
from datasets.formats.image_files import by_number
from datasets.formats.options import ReadOptions
from datasets.formats.scene_lists import Split, find_scene_list, read_scene_list
from datasets.photos.files import find_photos, find_unread_photos, is_video
from datasets.scene_cache import CAMERAS_NAME, find_estimate
from utils.errors import UserError

if TYPE_CHECKING:
    from datasets.posed_scene import PosedScene

DEFAULT_LISTS = Path(__file__).resolve().parents[2] / "configs" / "lists"

LAYOUT_HELP = (
    "A DTU folder holds Cameras/ (or Cameras/train/) with 00000000_cam.txt, and "
    "Rectified/scan1_train/ (or Rectified/scan1/) with rect_001_3_r5000.png; see data/README.md."
)
_NAMES_SHOWN = 3
_LOG = logging.getLogger(__name__)


def open_scene(name: str, folder: Path, options: ReadOptions | None = None) -> PosedScene:
    """Read a scene's cameras; pixels are read when asked for."""
    options = options or ReadOptions()
    options.check_size()
    place = folder
    if name == "photos" and not _has_own_cameras(folder):
        place = find_estimate(folder)
        if place is None:
            raise UserError(
                f"{folder}: these photos have no cameras yet. Let them be estimated first: "
                f"python -m apps.estimate_cameras --photos {folder}"
            )
    module = import_module(f"datasets.formats.{FORMATS[name].module}")
    scene = getattr(module, FORMATS[name].reader)(place, options)
    return scene if place == folder else replace(scene, name=folder.resolve().stem)


def _has_own_cameras(folder: Path) -> bool:
    return folder.suffix == ".json" or (folder / CAMERAS_NAME).is_file()


def find_scenes(name: str, folder: Path) -> list[Path]:
    """Return the folder itself if it is a scene, else the scenes in it, else the folder.

    ``folder`` may be a file, or ``data/dtu/scan2`` for a scan of DTU.
    """
    if not folder.is_dir() or _is_scene(name, folder):
        return [folder]
    if FORMATS[name].shares_cameras:
        return [folder / scan for scan in _scan_names(folder) or ["scan1"]]
    names = sorted((name for name in os.listdir(folder) if not name.startswith(".")), key=by_number)
    return [folder / inner for inner in names if _is_scene(name, folder / inner)] or [folder]


def choose_scenes(name: str, folder: Path, names: str = "", split: Split = "test") -> list[Path]:
    """Return the scenes of a folder that are named, separated by commas, else those of a split."""
    wanted = [word.strip() for word in names.split(",") if word.strip()]
    if is_part_of_folder(name, folder):
        if wanted not in ([], [folder.name]):
            raise UserError(f"--datadir {folder} and --scan {names} name two scans")
        folder, wanted = folder.parent, [folder.name]
    if not wanted:
        if not folder.exists() and not FORMATS[name].shares_cameras:
            others = [path.name for path in find_scenes(name, folder.parent)]
            raise UserError(
                f"{folder}: no such folder, there is no such scene{_nearest(folder.name, others)}"
            )
        return split_scenes(name, folder, split)
    found = {path.resolve().name: path for path in find_scenes(name, folder)}
    for scene in wanted:
        shared = FORMATS[name].shares_cameras
        if scene not in found and (shared or not (folder / scene).is_dir()):
            kind = "scan" if shared else "scene"
            raise UserError(
                f"{folder}: there is no {kind} {scene!r} (--scan){_nearest(scene, list(found))}"
            )
    return [found.get(scene, folder / scene) for scene in wanted]


def recognise_format(folder: Path) -> str:
    """Return the format by whose files a scene, or a folder of scenes, is known."""
    if folder.is_file():
        return _format_of_file(folder)
    for name, row in FORMATS.items():
        places = (folder, folder.parent) if row.shares_cameras else ()
        if any((place / row.markers[0]).is_dir() for place in places):
            return name
    if not folder.is_dir():
        others = [inner.name for inner in folder.parent.glob("*/")]
        near = _nearest(folder.name, others) if others else "; see data/README.md"
        raise UserError(f"{folder}: no such data folder (--datadir){near}")
    places = (folder, *sorted(inner for inner in folder.glob("*/")))
    found = (name for place in places for name in FORMATS if _is_scene(name, place))
    if name := next(found, None):
        return name
    if foreign := describe_foreign(folder):
        raise UserError(foreign)
    if find_photos(folder):
        return "photos"
    unread = find_unread_photos(folder)
    raise UserError(
        f"{folder}: holds {len(unread)} photos of kinds that are not read, such as {unread[0]}; "
        "convert them to JPEG."
        if unread
        else f"{folder}: neither it nor a folder in it is a scene of a known format, and it holds "
        "no photos; give the folder of a data set with --datadir, and its --dataset_name if it is "
        "unusual"
    )


def _format_of_file(file: Path) -> str:
    if is_video(file):
        return "photos"
    if file.suffix.lower() == ".json":
        return "transforms"
    own = f"{file}: is no camera file that is read alone; give its folder: {file.parent}"
    raise UserError(describe_foreign(file.parent) or own)


def split_scenes(name: str, folder: Path, split: Split) -> list[Path]:
    """Return the scenes of a split: those of the folder's list, or all that are there.

    Of a list only scans that share their cameras are looked for: a large data set opens at once.
    """
    row = FORMATS[name]
    if is_part_of_folder(name, folder):
        return [folder]
    path = _scene_list(name, folder, split)
    if path is None and row.default_lists:
        path = DEFAULT_LISTS / dict(row.default_lists)[split]
    if path is None:
        return find_scenes(name, folder)
    names = read_scene_list(path, plain_names=row.shares_cameras)
    return [folder / scene for scene in (_present(folder, names) if row.shares_cameras else names)]


def is_listed(name: str, root: Path) -> bool:
    """Say whether the data set lists scenes for training and others for validation."""
    own = _scene_list(name, root, "train") and _scene_list(name, root, "val")
    return own is not None or bool(FORMATS[name].default_lists)


def _scene_list(name: str, folder: Path, split: Split) -> Path | None:
    # In a scene itself such lists are of its images.
    lone = not FORMATS[name].shares_cameras and _is_scene(name, folder)
    return None if lone else find_scene_list(folder, split)


def is_part_of_folder(name: str, folder: Path) -> bool:
    """Say whether a path names a scan of the folder above it, as ``data/dtu/scan2`` does."""
    if not FORMATS[name].shares_cameras:
        return False
    marker = FORMATS[name].markers[0]
    return (folder.parent / marker).is_dir() and not (folder / marker).is_dir()


def _is_scene(name: str, folder: Path) -> bool:
    row = FORMATS[name]
    if row.shares_cameras:
        return is_part_of_folder(name, folder)
    places = [folder]
    if name == "blendedmvs":
        # High-resolution archives repeat the scene's name as a folder.
        places += [folder / folder.name, folder / folder.name / folder.name]
    return any(any(place.glob(marker)) for place in places for marker in row.markers)


def _scan_names(root: Path) -> list[str]:
    folders = (root / "Rectified").glob("*/")
    return sorted({folder.name.removesuffix("_train") for folder in folders}, key=by_number)


def _present(root: Path, names: Sequence[str]) -> list[str]:
    there = set(_scan_names(root))
    found = [name for name in names if name in there]
    missing = [name for name in names if name not in there]
    rest = len(missing) - _NAMES_SHOWN
    shown = ", ".join(missing[:_NAMES_SHOWN]) + (f", ... (+{rest})" if rest > 0 else "")
    if not found and not (root / "Cameras").is_dir():
        problem = "no such data folder (--datadir)"
        if root.is_dir():
            inside = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
            problem = f"no Cameras/ with 00000000_cam.txt; the folder holds {inside}"
            if (root / "cams").is_dir() or any(root.glob("*/cams")):
                problem += "; this is MVSNet's testing layout, read with --dataset_name blendedmvs"
        raise UserError(f"{root}: {problem}. {LAYOUT_HELP}")
    if not found:
        raise UserError(
            f"{root}: has cameras, but images of none of the {len(names)} scans of the list "
            f"({shown}): no Rectified/{names[0]}_train/rect_001_3_r5000.png and no "
            f"Rectified/{names[0]}/. Other scans can be named in lists/{{train,val,test}}.txt. "
            f"{LAYOUT_HELP}"
        )
    if missing:
        _LOG.warning("%d of %d scans found; missing: %s", len(found), len(names), shown)
    return found


def _nearest(wanted: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.3) or sorted(names)[:3]
    return f"; the nearest names there: {', '.join(close)}" if close else "; the folder has none"
