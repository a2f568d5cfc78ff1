"""Folders for what is computed once for a scene: cameras, depth range. Does not import torch.

They lie in ``estimated`` in a folder of photos, or in ``NAME_estimated`` beside a video or another
single file. Where nothing can be written there, they lie in the user's own cache, and where there
is none in the folder for temporary files.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

ESTIMATED = "estimated"
CAMERAS_NAME = "transforms.json"


def scene_cache(source: Path) -> Path:
    """Return the folder for what is found out about a scene, which need not exist yet."""
    beside = _folder_beside(source)
    writable = _is_writable(beside if beside.is_dir() else beside.parent)
    return beside if writable else _folder_of_user(source)


def find_estimate(source: Path) -> Path | None:
    """Return the folder with the cameras that were estimated for photos or a video, if any."""
    places = (_folder_beside(source), _folder_of_user(source))
    return next((place for place in places if (place / CAMERAS_NAME).is_file()), None)


def _is_writable(folder: Path) -> bool:
    # Root may write everywhere, but not where the owner forbade it to all.
    return os.access(folder, os.W_OK) and folder.stat().st_mode & 0o222 != 0


def _can_be_made(folder: Path) -> bool:
    if not folder.is_absolute():
        return False
    return _is_writable(next(place for place in (folder, *folder.parents) if place.is_dir()))


def _folder_beside(source: Path) -> Path:
    if source.suffix and not source.is_dir():
        return source.with_name(f"{source.stem}_{ESTIMATED}")
    return source / ESTIMATED


def _folder_of_user(source: Path) -> Path:
    place = source.resolve()
    return cache_of_user(place.name, str(place))


def cache_of_user(name: str, key: str) -> Path:
    """Return a folder in the user's own cache, named for people and told apart by ``key``."""
    # A container's user may have no home, or one that belongs to root.
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    root = Path(home if _can_be_made(Path(home)) else tempfile.gettempdir())
    return root / "vggt-nerf" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
