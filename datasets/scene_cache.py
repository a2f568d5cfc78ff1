"""Cache folders for what is computed once per scene: estimated cameras, measured depth range.

The cache of a folder of photos is its sub-folder ``estimated``; that of a video or another single
file is ``NAME_estimated`` beside it. If that place is not writable, the cache is in the user's
cache folder, or else in the folder for temporary files. This module does not import torch.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

ESTIMATED = "estimated"
CAMERAS_NAME = "transforms.json"


def scene_cache(source: Path) -> Path:
    """Return the cache folder of a scene, which may not exist yet."""
    local = _local_cache(source)
    writable = _is_writable(local if local.is_dir() else local.parent)
    return local if writable else _user_cache_of_scene(source)


def find_estimate(source: Path) -> Path | None:
    """Return the folder with the estimated cameras of photos or a video, if there is one."""
    folders = (_local_cache(source), _user_cache_of_scene(source))
    return next((folder for folder in folders if (folder / CAMERAS_NAME).is_file()), None)


def user_cache(name: str, key: str) -> Path:
    """Return a folder in the user's cache with a readable name, unique for ``key``."""
    # In a container, the user may have no home folder, or that of root.
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    root = home / "vggt-nerf"
    if not _is_creatable(home):
        # A folder of one user, since others cannot write into it.
        root = Path(tempfile.gettempdir()) / f"vggt-nerf-{os.getuid()}"
    return root / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def _is_writable(folder: Path) -> bool:
    # For root, os.access is always true; the mode bits respect a folder made read-only.
    return os.access(folder, os.W_OK) and folder.stat().st_mode & 0o222 != 0


def _is_creatable(folder: Path) -> bool:
    if not folder.is_absolute():
        return False
    return _is_writable(next(parent for parent in (folder, *folder.parents) if parent.is_dir()))


def _local_cache(source: Path) -> Path:
    if source.suffix and not source.is_dir():
        return source.with_name(f"{source.stem}_{ESTIMATED}")
    return source / ESTIMATED


def _user_cache_of_scene(source: Path) -> Path:
    path = source.resolve()
    return user_cache(path.name, str(path))
