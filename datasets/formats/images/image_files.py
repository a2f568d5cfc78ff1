"""Finding of image files by the names that a data set gives them, in any spelling."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from datasets.formats.options import ReadOptions, Size
from utils.errors import UserError

_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"),
    *(".heic", ".heif", ".avif", ".jfif", ".jpe", ".mpo"),
    *(".jp2", ".j2k", ".jpf", ".jpx", ".ppm", ".pgm", ".tga"),
)
UNSUPPORTED_SUFFIXES = frozenset(
    (
        ".dng .cr2 .cr3 .nef .nrw .arw .raf .orf .rw2 .pef .srw .jxl .psd .exr .hdr .gif .svg .pdf"
    ).split()
)
"""Image formats that are not read."""
DYNAMIC_MASK_PREFIX = "dynamic_mask_"
"""Begins the file name of a photo's mask of moving objects, in instant-ngp's layout."""
_SUFFIX = re.compile("|".join(sorted(map(re.escape, _SUFFIXES), reverse=True)), re.IGNORECASE)
_NUMBERS = re.compile(r"(\d+)")
_MAX_DIGITS = 20
_DOWNSCALED_FOLDER = re.compile(r"(.*)_(\d+)")
"""A folder of downscaled copies, such as images_4."""


def list_folder(folder: Path) -> list[Path]:
    """List a folder by name, without hidden files."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot list the folder ({error.strerror}).") from error


def describe_folder(folder: Path) -> str:
    """Return a clause for error messages that lists the contents of a folder."""
    if not folder.is_dir():
        return "there is no such folder"
    names = ", ".join(entry.name for entry in list_folder(folder)[:8]) or "nothing"
    return f"the folder holds {names}"


def list_images(folder: Path) -> list[Path]:
    """List the image files of a folder, without dynamic masks, by the numbers in their names."""
    images = [
        path
        for path in list_folder(folder)
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(DYNAMIC_MASK_PREFIX)
    ]
    return sorted(images, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key that orders r_2 before r_10 and ignores upper and lower case."""
    return [
        (int(part), "") if part.isdecimal() and len(part) < _MAX_DIGITS else (-1, part)
        for part in _NUMBERS.split(name.casefold())
        if part
    ]


def normalize_path(name: str) -> str:
    """Return a relative or absolute path with forward slashes and without ``./``."""
    return str(PurePosixPath(name.strip().replace("\\", "/")))


@dataclass(frozen=True)
class ImageFinder:
    """Finds files under a folder by names that may be spelled differently.

    Case and Unicode normal form are ignored; the suffix may be missing or that of another image
    format. Leading folders that do not exist here are dropped, as in paths of another machine; of
    a relative path at least one folder is kept.
    """

    folder: Path
    _listings: dict[Path, dict[str, Path]] = field(default_factory=dict, repr=False)

    def __call__(self, name: str) -> Path | None:
        """Return the file of a name, or None."""
        parts = PurePosixPath(normalize_path(name)).parts
        absolute = bool(parts) and (parts[0] == "/" or parts[0].endswith(":"))
        path = Path(*parts)
        if absolute and parts[0] == "/" and os.path.isfile(path):
            return path
        if not absolute and (file := self._find_below(self.folder, parts)):
            return file
        min_parts = 1 if absolute else 2
        tails = (parts[start:] for start in range(1, len(parts) - min_parts + 1))
        return next((file for tail in tails if (file := self._find_below(self.folder, tail))), None)

    def downscaled(self, name: str) -> dict[Path, Path]:
        """Return the copies of an image in folders such as images_4, by folder."""
        *folders, file = PurePosixPath(normalize_path(name)).parts or ("",)
        copies = {}
        for depth in range(len(folders)):
            parent = self._find_below(self.folder, tuple(folders[:depth]), is_folder=True)
            for folder in self._downscaled_folders(parent, folders[depth]) if parent else ():
                if path := self._find_below(folder, (*folders[depth + 1 :], file)):
                    copies[folder] = path
        return copies

    def _downscaled_folders(self, parent: Path, name: str) -> list[Path]:
        return [
            path
            for path in self._listing(parent).values()
            if (match := _DOWNSCALED_FOLDER.fullmatch(path.name)) and _fold(match[1]) == _fold(name)
        ]

    def _find_below(
        self, folder: Path, parts: tuple[str, ...], is_folder: bool = False
    ) -> Path | None:
        path = folder
        for index, part in enumerate(parts):
            is_file = index == len(parts) - 1 and not is_folder
            exact = path / part
            # Unlike Path.is_file, os.path does not raise for names that no file can have.
            if part == ".." or (os.path.isfile if is_file else os.path.isdir)(exact):
                path = exact
                continue
            listing = self._listing(path)
            spellings = map(_fold, _spellings(part) if is_file else [part])
            match = next((listing[key] for key in spellings if key in listing), None)
            if match is None:
                return None
            path = match
        exists = os.path.isdir if is_folder else os.path.isfile
        return path if exists(path) else None

    def _listing(self, folder: Path) -> dict[str, Path]:
        if folder not in self._listings:
            entries = list_folder(folder) if os.path.isdir(folder) else []
            self._listings[folder] = {_fold(path.name): path for path in reversed(entries)}
        return self._listings[folder]


def downscale_factor(path: Path, name: str) -> int:
    """Return the factor by which a copy is smaller than the named image: 4 in images_4, else 1."""
    named = set(PurePosixPath(normalize_path(name)).parts)
    matches = [_DOWNSCALED_FOLDER.fullmatch(part) for part in path.parts if part not in named]
    factors = [int(match[2]) for match in matches if match and match[1] in named]
    return factors[-1] if factors else 1


def find_image_folders(root: Path, pattern: str) -> list[Path]:
    """Return the folders whose name matches, with or without a number as in images_4."""
    name = re.compile(rf"({pattern})(_\d+)?", re.IGNORECASE)
    return [entry for entry in list_folder(root) if name.fullmatch(entry.name) and entry.is_dir()]


def choose_image_folder(
    folders: Mapping[Path, Size], options: ReadOptions
) -> tuple[Path, ReadOptions]:
    """Choose the smallest images that need not be enlarged, else the largest.

    ``folders`` maps each folder to the size of its images. The options that are returned lead to
    the size that those given would choose for the largest images.
    """
    ordered = sorted(folders, key=lambda folder: folders[folder][0] * folders[folder][1])
    height, width = options.target_size(folders[ordered[-1]])
    for folder in ordered[:-1]:
        if folders[folder][0] >= height and folders[folder][1] >= width:
            return folder, replace(options, size=(height, width))
    return ordered[-1], options


def _spellings(name: str) -> list[str]:
    path = PurePosixPath(name)
    names = [name, *(f"{name}{suffix}" for suffix in _SUFFIXES)]
    if path.suffix.lower() in _SUFFIXES:
        names += [path.stem + suffix for suffix in _SUFFIXES]
        # Some programs append number and suffix to a name that has one: a.png0001.png, a.png.png.
        if (inner := [part for part in _SUFFIX.split(path.stem) if part]) != [path.stem]:
            names += [part + path.suffix for part in inner[-1:]]
    return names


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
