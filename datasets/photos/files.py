"""Finds the files of photos and videos that have no cameras yet.

This module does not import torch.
"""

from __future__ import annotations

from pathlib import Path

from datasets.formats.images.image_files import UNSUPPORTED_SUFFIXES, list_images

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
_SUBFOLDERS = ("", "images", "input")
"""Where photos lie in a folder, in the order of the search."""


def is_video(path: Path) -> bool:
    """Tell a video by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()


def scene_name(source: Path) -> str:
    """Return the name of a folder, or that of a video without its suffix."""
    path = source.resolve()
    return path.name if path.is_dir() else path.stem


def find_photos(folder: Path) -> list[Path]:
    """Return the photos in a folder, or else in its ``images`` or ``input``, by their numbers.

    The list may be empty.
    """
    candidates = (list_images(subfolder) for subfolder in _photo_folders(folder))
    return next((photos for photos in candidates if photos), [])


def find_unread_photos(folder: Path) -> list[str]:
    """Return the names of photos in unsupported file formats, in the folders of ``find_photos``."""
    files = sorted(path for subfolder in _photo_folders(folder) for path in subfolder.iterdir())
    return [path.name for path in files if path.suffix.lower() in UNSUPPORTED_SUFFIXES]


def _photo_folders(folder: Path) -> list[Path]:
    return [folder / name for name in _SUBFOLDERS if (folder / name).is_dir()]
