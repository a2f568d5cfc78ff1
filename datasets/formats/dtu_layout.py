"""Where the files of a DTU folder lie: every variant of the layout that circulates.

* cameras: ``Cameras/train/00000000_cam.txt``, else ``Cameras/00000000_cam.txt``
* images: ``Rectified/scan1_train/rect_001_3_r5000.png``, else ``Rectified/scan1/``; view 0, light 3
* depth: ``Depths_raw/scan1/depth_map_0000.pfm``, else ``Depths/scan1/``, ``Depths/scan1_train/``
* masks: ``depth_visual_0000.png`` beside the depth map

Views count from 0 everywhere but in the names of images. Only names are looked at here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError

_IMAGE_NAME = re.compile(r"rect_(\d{3,4})_(\d+)_r\d+\.png")
_CAMERA_NAME = re.compile(r"(\d{8})_cam\.txt")
_DEPTH_NAME = re.compile(r"depth_map_(\d{4})\.pfm")
_MASK_NAME = re.compile(r"depth_visual_(\d{4})\.png")

LAYOUT_HELP = (
    "A DTU folder holds Cameras/ (or Cameras/train/) with 00000000_cam.txt, and "
    "Rectified/scan1_train/ (or Rectified/scan1/) with rect_001_3_r5000.png; see data/README.md."
)


@dataclass(frozen=True)
class ScanFiles:
    """The files of one scan, by view."""

    name: str
    image_dir: Path
    images: Mapping[int, Mapping[int, Path]]
    """By light, then by view. Never empty."""
    depths: Mapping[int, Path]
    masks: Mapping[int, Path]


def find_camera_files(root: Path) -> dict[int, Path]:
    """Find the camera file of every view.

    Raises:
        UserError: There is no such folder, or it holds no cameras.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such data folder (--datadir). {LAYOUT_HELP}")
    for folder in (root / "Cameras" / "train", root / "Cameras"):
        if files := _files_by_view(folder, _CAMERA_NAME):
            return files
    found = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
    raise UserError(
        f"{root}: neither Cameras/train/ nor Cameras/ holds 00000000_cam.txt or the like; the "
        f"folder holds {found}. {LAYOUT_HELP}"
    )


def find_scan(root: Path, name: str) -> ScanFiles | None:
    """Find the files of a scan; ``None`` if it has no images."""
    for folder in (f"{name}_train", name):
        image_dir = root / "Rectified" / folder
        if images := _images_by_light(image_dir):
            depth_dir = _find_depth_dir(root, name)
            return ScanFiles(
                name=name,
                image_dir=image_dir,
                images=images,
                depths=_files_by_view(depth_dir, _DEPTH_NAME),
                masks=_files_by_view(depth_dir, _MASK_NAME),
            )
    return None


def _find_depth_dir(root: Path, name: str) -> Path:
    """Return the first folder that holds depth maps, those of the highest resolution first."""
    folders = [
        root / "Depths_raw" / name,
        root / "Depths" / name,
        root / "Depths" / f"{name}_train",
    ]
    return next((folder for folder in folders if _files_by_view(folder, _DEPTH_NAME)), folders[0])


def _images_by_light(folder: Path) -> dict[int, dict[int, Path]]:
    images: dict[int, dict[int, Path]] = {}
    for match, path in _matching(folder, _IMAGE_NAME):
        view, light = int(match[1]) - 1, int(match[2])
        images.setdefault(light, {})[view] = path
    return images


def _files_by_view(folder: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    return {int(match[1]): path for match, path in _matching(folder, pattern)}


def _matching(folder: Path, pattern: re.Pattern[str]) -> list[tuple[re.Match[str], Path]]:
    if not folder.is_dir():
        return []
    entries = sorted(folder.iterdir())
    return [(match, path) for path in entries if (match := pattern.fullmatch(path.name))]
