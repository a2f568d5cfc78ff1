"""Recognition, listing and opening of scenes of all formats.

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

from datasets.formats.format_table import FORMATS
from datasets.formats.images.image_files import describe_folder, natural_key
from datasets.formats.messages import join_names
from datasets.formats.options import ReadOptions
from datasets.formats.splits import Split, find_scene_list, read_scene_list
from datasets.formats.unsupported import describe_unsupported
from datasets.photos.files import find_photos, find_unread_photos, is_video, scene_name
from datasets.scene_cache import CAMERAS_NAME, find_estimate
from utils.errors import UserError
from utils.files import shell_command

if TYPE_CHECKING:
    from datasets.posed_scene import PosedScene

DEFAULT_LISTS = Path(__file__).resolve().parents[2] / "configs" / "lists"

LAYOUT_HELP = (
    "A DTU folder holds Cameras/ (or Cameras/train/) with 00000000_cam.txt, and "
    "Rectified/scan1_train/ (or Rectified/scan1/) with rect_001_3_r5000.png; see data/README.md."
)
_LOG = logging.getLogger(__name__)


def open_scene(name: str, folder: Path, options: ReadOptions | None = None) -> PosedScene:
    """Read a scene of a format; its pixels are read on demand."""
    camera_folder = folder
    has_cameras = folder.suffix == ".json" or (folder / CAMERAS_NAME).is_file()
    if name == "photos" and not has_cameras:
        camera_folder = find_estimate(folder)
        if camera_folder is None:
            estimation = shell_command("-m apps.estimate_cameras", "--photos", folder)
            raise UserError(
                f"{folder}: these photos have no cameras yet. Let them be estimated first: "
                f"{estimation}"
            )
    module, _, function = FORMATS[name].reader.rpartition(".")
    reader = getattr(import_module(f"datasets.formats.{module}"), function)
    scene = reader(camera_folder, options or ReadOptions())
    return scene if camera_folder == folder else replace(scene, name=scene_name(folder))


def find_scenes(name: str, folder: Path) -> list[Path]:
    """Return the folder itself if it is a scene, else the scenes in it, else the folder.

    ``folder`` may be a file, or a scan of DTU such as ``data/dtu/scan2``.
    """
    if not folder.is_dir() or _is_scene(name, folder):
        return [folder]
    if FORMATS[name].shares_cameras:
        return [folder / scan for scan in _list_scans(folder) or ["scan1"]]
    visible = (entry for entry in os.listdir(folder) if not entry.startswith("."))
    inner = [folder / entry for entry in sorted(visible, key=natural_key)]
    return [scene for scene in inner if _is_scene(name, scene)] or [folder]


def choose_scenes(name: str, folder: Path, names: str = "", split: Split = "test") -> list[Path]:
    """Return the scenes of comma-separated ``names``, else those of a split."""
    chosen = [word.strip() for word in names.split(",") if word.strip()]
    shares_cameras = FORMATS[name].shares_cameras
    if is_part_of_folder(name, folder):
        if chosen not in ([], [folder.name]):
            raise UserError(f"--datadir {folder} and --scan {names} name two scans")
        folder, chosen = folder.parent, [folder.name]
    if not chosen:
        if not folder.exists() and not shares_cameras:
            others = [path.name for path in find_scenes(name, folder.parent)]
            raise UserError(f"{folder}: no such scene{_nearest(folder.name, others)}")
        return split_scenes(name, folder, split)
    existing = {path.resolve().name: path for path in find_scenes(name, folder)}
    for scene in chosen:
        if scene not in existing and (shares_cameras or not (folder / scene).is_dir()):
            kind = "scan" if shares_cameras else "scene"
            raise UserError(
                f"{folder}: there is no {kind} {scene!r} (--scan){_nearest(scene, list(existing))}"
            )
    return [existing.get(scene, folder / scene) for scene in chosen]


def recognise_format(folder: Path) -> str:
    """Return the format of a scene, or of a folder of scenes, by its files."""
    if folder.is_file():
        return _format_of_file(folder)
    for name, scene_format in FORMATS.items():
        roots = (folder, folder.parent) if scene_format.shares_cameras else ()
        if any((root / scene_format.markers[0]).is_dir() for root in roots):
            return name
    if not folder.is_dir():
        others = [inner.name for inner in folder.parent.glob("*/")]
        nearest = _nearest(folder.name, others) if others else "; see data/README.md"
        raise UserError(f"{folder}: no such data folder (--datadir){nearest}")
    candidates = (folder, *sorted(folder.glob("*/")))
    names = (name for path in candidates for name in FORMATS if _is_scene(name, path))
    if name := next(names, None):
        return name
    unsupported = describe_unsupported(folder)
    if unsupported is None and find_photos(folder):
        return "photos"
    raise UserError(unsupported or _describe_unknown(folder))


def _describe_unknown(folder: Path) -> str:
    if unread := find_unread_photos(folder):
        return (
            f"{folder}: holds {len(unread)} photos of kinds that are not read, such as "
            f"{unread[0]}; convert them to JPEG."
        )
    return (
        f"{folder}: neither it nor a folder in it is a scene of a known format, and it holds no "
        "photos; give the folder of a data set with --datadir, and its --dataset_name if it is "
        "unusual"
    )


def _format_of_file(file: Path) -> str:
    if is_video(file):
        return "photos"
    if file.suffix.lower() == ".json":
        return "transforms"
    problem = f"{file}: is not a camera file that can be read alone; give its folder: {file.parent}"
    raise UserError(describe_unsupported(file.parent) or problem)


def split_scenes(name: str, folder: Path, split: Split) -> list[Path]:
    """Return the scenes of a split: those of the folder's list, or all in the folder.

    Listed scenes are not checked to exist, so that large data sets open at once; scans are.
    """
    scene_format = FORMATS[name]
    if is_part_of_folder(name, folder):
        return [folder]
    path = _scene_list(name, folder, split)
    if path is None and scene_format.default_lists:
        path = DEFAULT_LISTS / scene_format.default_lists[split]
    if path is None:
        return find_scenes(name, folder)
    names = read_scene_list(path, plain_names=scene_format.shares_cameras)
    if scene_format.shares_cameras:
        names = _existing_scans(folder, names)
    return [folder / scene for scene in names]


def is_listed(name: str, root: Path) -> bool:
    """Return whether a data set has lists of training and of validation scenes."""
    own = _scene_list(name, root, "train") and _scene_list(name, root, "val")
    return own is not None or bool(FORMATS[name].default_lists)


def _scene_list(name: str, folder: Path, split: Split) -> Path | None:
    # The lists in the folder of a scene are of its images.
    is_scene = not FORMATS[name].shares_cameras and _is_scene(name, folder)
    return None if is_scene else find_scene_list(folder, split)


def is_part_of_folder(name: str, folder: Path) -> bool:
    """Return whether a path names a scan of its parent folder, as ``data/dtu/scan2`` does."""
    if not FORMATS[name].shares_cameras:
        return False
    marker = FORMATS[name].markers[0]
    return (folder.parent / marker).is_dir() and not (folder / marker).is_dir()


def _is_scene(name: str, folder: Path) -> bool:
    if FORMATS[name].shares_cameras:
        return is_part_of_folder(name, folder)
    roots = [folder]
    if name == "blendedmvs":
        # High-resolution archives repeat the scene's name as a folder.
        roots += [folder / folder.name, folder / folder.name / folder.name]
    return any(any(root.glob(marker)) for root in roots for marker in FORMATS[name].markers)


def _list_scans(root: Path) -> list[str]:
    folders = (root / "Rectified").glob("*/")
    return sorted({folder.name.removesuffix("_train") for folder in folders}, key=natural_key)


def _existing_scans(root: Path, names: Sequence[str]) -> list[str]:
    scans = set(_list_scans(root))
    existing = [name for name in names if name in scans]
    missing = [name for name in names if name not in scans]
    if not existing and not (root / "Cameras").is_dir():
        problem = "no such data folder (--datadir)"
        if root.is_dir():
            problem = f"no Cameras/ with 00000000_cam.txt; {describe_folder(root)}"
            if (root / "cams").is_dir() or any(root.glob("*/cams")):
                problem += "; this is MVSNet's testing layout, read with --dataset_name blendedmvs"
        raise UserError(f"{root}: {problem}. {LAYOUT_HELP}")
    if not existing:
        raise UserError(
            f"{root}: has cameras, but images of none of the {len(names)} scans of the list "
            f"({join_names(missing)}): no Rectified/{names[0]}_train/rect_001_3_r5000.png and no "
            f"Rectified/{names[0]}/. Other scans can be named in lists/{{train,val,test}}.txt. "
            f"{LAYOUT_HELP}"
        )
    if missing:
        counts = len(existing), len(names)
        _LOG.warning("%d of %d scans found; missing: %s", *counts, join_names(missing))
    return existing


def _nearest(name: str, existing: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, existing, n=3, cutoff=0.3) or sorted(existing)[:3]
    return (
        f"; similar names in the folder: {', '.join(close)}"
        if close
        else "; the folder has no scenes"
    )
