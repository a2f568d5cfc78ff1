"""Photos and videos of users, which have no cameras yet: the files that hold them.

This module does not import torch.
"""

from __future__ import annotations

from pathlib import Path

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
_FOLDERS = ("", "images", "input")
"""In which photos lie in a folder, in the order in which they are looked for."""


def is_video(path: Path) -> bool:
    """Tell a video by its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()


def find_photos(folder: Path) -> list[Path]:
    """Return the photos in a folder, or else in ``images`` or ``input`` in it; there may be none.

    They come in the order of the numbers in their names.
    """
    from datasets.formats.images.image_files import list_images

    places = (folder / name for name in _FOLDERS)
    found = (list_images(place) for place in places if place.is_dir())
    return next((photos for photos in found if photos), [])


def find_unread_photos(folder: Path) -> list[str]:
    """Return the names of photos of kinds that are not read, where photos are looked for."""
    from datasets.formats.images.image_files import UNSUPPORTED_SUFFIXES

    places = [folder / name for name in _FOLDERS if (folder / name).is_dir()]
    files = sorted(path for place in places for path in place.iterdir())
    return [path.name for path in files if path.suffix.lower() in UNSUPPORTED_SUFFIXES]
