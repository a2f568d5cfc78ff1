"""All readers of single scenes by name, and the scenes of a folder.

Whoever takes a ``dataset_name`` from a user - training, evaluation, inspection - opens scenes here.
DTU's folders hold many scans with shared cameras; ``datasets.formats.dtu`` reads those.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from datasets.formats.blendedmvs import CAMERAS, read_blendedmvs
from datasets.formats.blender import read_blender
from datasets.formats.colmap import read_colmap
from datasets.formats.images import Size
from datasets.formats.llff import read_llff
from datasets.formats.transforms import read_transforms
from datasets.posed_scene import PosedScene
from datasets.view_selection import Split, read_scene_list
from utils.errors import UserError

SceneFormat = Literal["llff", "blender", "transforms", "colmap", "blendedmvs", "photos"]
SCENE_FORMATS: tuple[SceneFormat, ...] = get_args(SceneFormat)
RANGED: tuple[SceneFormat, ...] = ("transforms", "colmap", "blender", "photos")
"""Formats whose near and far can be chosen; the others' files always say them."""
ESTIMATED = "estimated"
"""Folder, beside a user's photos, with the cameras that were estimated for them."""


@dataclass(frozen=True)
class ReadOptions:
    """What can be chosen about a scene, whatever its format."""

    size: Size | None = None
    """Height and width to resize to; None: as the images are."""
    near_far: tuple[float, float] | None = None
    """Nearest and farthest z-depth in the scene's units; None: what the files say."""
    background: float = 1.0
    """Grey behind transparent pixels of blender's images."""


_MARKERS: dict[SceneFormat, tuple[str, ...]] = {
    "llff": ("poses_bounds.npy",),
    "blender": ("transforms_train.json",),
    "transforms": ("transforms.json",),
    "colmap": (
        "sparse/0/cameras.bin",
        "sparse/0/cameras.txt",
        "sparse/cameras.bin",
        "sparse/cameras.txt",
        "colmap/sparse/0/cameras.bin",
    ),
    "blendedmvs": (f"{CAMERAS}/00000000_cam.txt", f"{CAMERAS}/pair.txt", CAMERAS),
    "photos": (f"{ESTIMATED}/transforms.json", "transforms.json"),
}
"""Files by which a folder is known as a scene."""
_LIST_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("lists/train.txt", "training_list.txt", "BlendedMVS_training.txt"),
    "val": ("lists/val.txt", "lists/test.txt", "validation_list.txt", "BlendedMVS_validation.txt"),
    "test": ("lists/test.txt", "lists/val.txt", "validation_list.txt", "BlendedMVS_validation.txt"),
}


def chosen_range(name: str, near_far: Sequence[float]) -> tuple[float, float] | None:
    """Return the range that somebody chose for a data set, for ``ReadOptions``.

    Args:
        name: Format of the data set.
        near_far: Nearest and farthest z-depth in the scene's units, or nothing.

    Raises:
        UserError: It is no range, or the format takes none.
    """
    if not near_far:
        return None
    if name not in RANGED:
        raise UserError(
            f"near_far cannot be chosen for dataset_name={name}, only for {', '.join(RANGED)}."
        )
    if len(near_far) != 2:
        raise UserError(f"near_far takes two numbers, got {len(near_far)}.")
    near, far = near_far
    if not 0 < near < far < math.inf:
        raise UserError(f"near_far={near:g} {far:g}: 0 < near < far must hold.")
    return near, far


def open_scene(name: SceneFormat, folder: Path, options: ReadOptions | None = None) -> PosedScene:
    """Read a scene's cameras; pixels are read when asked for.

    Raises:
        UserError: A file is missing or malformed, or images and cameras do not go together.
    """
    return _READERS[name](folder, options or ReadOptions())


def find_scenes(name: SceneFormat, folder: Path) -> list[Path]:
    """Return the folder itself if it is a scene, else the scenes in it, else the folder.

    Args:
        name: Format of the scenes.
        folder: What the user gave; may be a file.
    """
    if not folder.is_dir() or _is_scene(name, folder):
        return [folder]
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    return [folder / inner for inner in names if _is_scene(name, folder / inner)] or [folder]


def recognise_format(folder: Path) -> SceneFormat | None:
    """Return the format by whose files a scene, or a folder of scenes, is known; None: unknown."""
    if folder.is_file():
        return "transforms"
    places = [folder, *sorted(inner for inner in folder.glob("*/"))]
    for place in places:
        for name in SCENE_FORMATS:
            if _is_scene(name, place):
                return name
    return None


def find_split(folder: Path, split: Split) -> Path | None:
    """Return the list of a split's scenes, if the folder has one."""
    paths = [folder / name for name in _LIST_NAMES[split]]
    return next((path for path in paths if path.is_file()), None)


def split_scenes(name: SceneFormat, folder: Path, split: Split) -> list[Path]:
    """Return the scenes of a split: those of the folder's list, or all that are there.

    A list is believed without a look at the folders, so that a large data set opens at once.

    Raises:
        UserError: The list is malformed.
    """
    path = find_split(folder, split)
    if path is None:
        return find_scenes(name, folder)
    return [folder / scene for scene in read_scene_list(path)]


def _is_scene(name: SceneFormat, folder: Path) -> bool:
    if any((folder / marker).exists() for marker in _MARKERS[name]):
        return True
    # High-resolution archives of BlendedMVS repeat the scene's name as a folder.
    if name != "blendedmvs":
        return False
    once = folder / folder.name
    return any((inner / CAMERAS).exists() for inner in (once, once / folder.name))


def _read_llff(folder: Path, options: ReadOptions) -> PosedScene:
    return read_llff(folder, options.size)


def _read_blender(folder: Path, options: ReadOptions) -> PosedScene:
    return read_blender(
        folder, options.size, background=options.background, near_far=options.near_far
    )


def _read_transforms(folder: Path, options: ReadOptions) -> PosedScene:
    return read_transforms(folder, options.size, near_far=options.near_far)


def _read_colmap(folder: Path, options: ReadOptions) -> PosedScene:
    return read_colmap(folder, options.size, near_far=options.near_far)


def _read_blendedmvs(folder: Path, options: ReadOptions) -> PosedScene:
    return read_blendedmvs(folder, options.size)


def _read_photos(folder: Path, options: ReadOptions) -> PosedScene:
    """Read photos whose cameras were estimated before."""
    for place in (folder / ESTIMATED, folder):
        if (place / "transforms.json").is_file():
            scene = read_transforms(place, options.size, near_far=options.near_far)
            return scene if place == folder else _renamed(scene, folder)
    raise UserError(
        f"{folder}: these photos have no cameras yet. Let them be estimated first: "
        f"python -m apps.estimate_cameras --photos {folder}"
    )


def _renamed(scene: PosedScene, folder: Path) -> PosedScene:
    return replace(scene, name=folder.resolve().name)


_READERS: dict[SceneFormat, Callable[[Path, ReadOptions], PosedScene]] = {
    "llff": _read_llff,
    "blender": _read_blender,
    "transforms": _read_transforms,
    "colmap": _read_colmap,
    "blendedmvs": _read_blendedmvs,
    "photos": _read_photos,
}
