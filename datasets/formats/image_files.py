"""Finding image files by the names that a data set gives them, in whatever spelling."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from datasets.formats.options import ReadOptions, Size
from utils.errors import UserError

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"),
    *(".heic", ".heif", ".avif", ".jfif", ".jpe", ".mpo"),
    *(".jp2", ".j2k", ".jpf", ".jpx", ".ppm", ".pgm", ".tga"),
)
UNREAD_SUFFIXES = frozenset(
    (
        ".dng .cr2 .cr3 .nef .nrw .arw .raf .orf .rw2 .pef .srw .jxl .psd .exr .hdr .gif .svg .pdf"
    ).split()
)
"""Pictures that are not read."""
DYNAMIC_MASK = "dynamic_mask_"
"""Begins the name of the mask of a photo's moving things, in instant-ngp's layout."""
_SUFFIX = re.compile("|".join(sorted(map(re.escape, IMAGE_SUFFIXES), reverse=True)), re.IGNORECASE)
_NUMBERS = re.compile(r"(\d+)")
_MAX_DIGITS = 20
_SHRUNK = re.compile(r"(.*)_(\d+)")
"""A folder of shrunk copies, such as images_4."""


def list_folder(folder: Path) -> list[Path]:
    """List a folder by name; hidden files are passed over."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot list the folder ({error.strerror}).") from error


def describe_folder(folder: Path) -> str:
    """Say in a message what a folder holds."""
    if not folder.is_dir():
        return "there is no such folder"
    found = ", ".join(entry.name for entry in list_folder(folder)[:8]) or "nothing"
    return f"the folder holds {found}"


def list_images(folder: Path) -> list[Path]:
    """List the image files of a folder, masks of moving things aside, by numbers in their names."""
    found = [
        path
        for path in list_folder(folder)
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(DYNAMIC_MASK)
    ]
    return sorted(found, key=lambda path: by_number(path.name))


def by_number(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts r_2 before r_10 and before R_3, and padded names as they are."""
    return [
        (int(part), "") if part.isdecimal() and len(part) < _MAX_DIGITS else (-1, part)
        for part in _NUMBERS.split(name.casefold())
        if part
    ]


def common_spelling(name: str) -> str:
    """Return the name of a file as other systems spell it: slashes forward, no ``./``."""
    return str(PurePosixPath(name.strip().replace("\\", "/")))


@dataclass(frozen=True)
class ImageFinder:
    """Finds files under a folder by names that may be spelled in other ways.

    Upper and lower case, composed and decomposed accents count the same; a suffix may be missing
    or another image's; paths of the machine that exported are looked for from here, those that are
    relative with a folder at least.
    """

    folder: Path
    _listed: dict[Path, dict[str, Path]] = field(default_factory=dict, repr=False)

    def __call__(self, name: str) -> Path | None:
        """Return the file of a name, in its folder or in a folder of full-size copies."""
        parts = PurePosixPath(common_spelling(name)).parts
        absolute = bool(parts) and (parts[0] == "/" or parts[0].endswith(":"))
        path = Path(*parts)
        if absolute and parts[0] == "/" and os.path.isfile(path):
            return path
        if not absolute and (file := self._below(self.folder, parts)):
            return file
        # The longest end of the path that is here.
        shortest = 1 if absolute else 2
        tails = (parts[start:] for start in range(1, len(parts) - shortest + 1))
        return next((file for tail in tails if (file := self._below(self.folder, tail))), None)

    def shrunk(self, name: str) -> dict[Path, Path]:
        """Return the copies of an image in folders such as images_4, by folder."""
        *folders, file = PurePosixPath(common_spelling(name)).parts or ("",)
        found = {}
        for place in range(len(folders)):
            above = self._below(self.folder, tuple(folders[:place]), folder=True)
            for copies in self._copies(above, folders[place]) if above else ():
                if path := self._below(copies, (*folders[place + 1 :], file)):
                    found[copies] = path
        return found

    def _copies(self, above: Path, name: str) -> list[Path]:
        names = self._names(above).values()
        return [
            path
            for path in names
            if (match := _SHRUNK.fullmatch(path.name)) and _plain(match[1]) == _plain(name)
        ]

    def _below(self, place: Path, parts: tuple[str, ...], folder: bool = False) -> Path | None:
        for number, part in enumerate(parts):
            last = number == len(parts) - 1 and not folder
            exact = place / part
            # os.path answers for names that no file can have, too.
            if part == ".." or (os.path.isfile if last else os.path.isdir)(exact):
                place = exact
                continue
            names = self._names(place)
            spelled = _spellings(part) if last else [part]
            other = next((names[key] for text in spelled if (key := _plain(text)) in names), None)
            if other is None:
                return None
            place = other
        exists = os.path.isdir if folder else os.path.isfile
        return place if exists(place) else None

    def _names(self, folder: Path) -> dict[str, Path]:
        if folder not in self._listed:
            entries = list_folder(folder) if os.path.isdir(folder) else []
            self._listed[folder] = {_plain(path.name): path for path in reversed(entries)}
        return self._listed[folder]


def shrinkage(path: Path, name: str) -> int:
    """Return by how much a copy is smaller than the image of a name: 4 in images_4, else 1."""
    stated = {part for part in PurePosixPath(common_spelling(name)).parts}
    numbers = [_SHRUNK.fullmatch(part) for part in path.parts if part not in stated]
    found = [int(match[2]) for match in numbers if match and match[1] in stated]
    return found[-1] if found else 1


def find_image_folders(root: Path, pattern: str) -> list[Path]:
    """Return the folders whose name matches, with or without a number as in images_4."""
    name = re.compile(rf"({pattern})(_\d+)?", re.IGNORECASE)
    return [entry for entry in list_folder(root) if name.fullmatch(entry.name) and entry.is_dir()]


def choose_image_folder(
    folders: Mapping[Path, Size], options: ReadOptions
) -> tuple[Path, ReadOptions]:
    """Choose the smallest images that need not be enlarged, else the largest; and how to read them.

    ``folders`` come with the size of their images.
    """
    ordered = sorted(folders, key=lambda folder: folders[folder][0] * folders[folder][1])
    height, width = options.target_size(folders[ordered[-1]])
    for folder in ordered[:-1]:
        if folders[folder][0] >= height and folders[folder][1] >= width:
            return folder, replace(options, size=(height, width))
    return ordered[-1], options


def _spellings(name: str) -> list[str]:
    path = PurePosixPath(name)
    names = [name, *(f"{name}{suffix}" for suffix in IMAGE_SUFFIXES)]
    if path.suffix.lower() in IMAGE_SUFFIXES:
        names += [path.stem + suffix for suffix in IMAGE_SUFFIXES]
        # Some programs append number and suffix to a name that has one: a.png0001.png, a.png.png.
        if (inner := [part for part in _SUFFIX.split(path.stem) if part]) != [path.stem]:
            names += [part + path.suffix for part in inner[-1:]]
    return names


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
