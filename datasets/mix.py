"""Data sets of a training by name and place. This module does not import torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datasets.formats.format_table import FORMATS
from datasets.formats.options import ReadOptions, Size
from datasets.remote_folder import folder_for, is_url
from utils.errors import UserError
from utils.files import from_repository

_OPTION = re.compile(r",(\w+)=([^,=]*)$")
_KEYS = ("weight", "height", "width")


@dataclass(frozen=True)
class DataSource:
    """One data set of a training."""

    name: str
    folder: Path
    weight: float = 1.0
    options: ReadOptions = field(default_factory=ReadOptions)
    scan: str = ""
    url: str = ""
    """Of shards that lie elsewhere; the folder then stands for it."""


def parse_source(text: str) -> DataSource:
    """Read ``name:folder[,weight=2][,height=512,width=640]``; the folder may hold any character.

    Procedural worlds have no folder, and sizes of their own: ``procedural[,weight=8]``.
    """
    rest = text
    numbers: dict[str, float] = {}
    while match := _OPTION.search(rest):
        if match[1] not in _KEYS:
            raise UserError(f"mix {text!r}: {match[1]!r} is none of {', '.join(_KEYS)}.")
        numbers[match[1]] = _positive(match[2], f"mix {text!r}: {match[1]}")
        rest = rest[: match.start()]
    if rest == "procedural" and numbers.keys() <= {"weight"}:
        return DataSource(rest, Path(), numbers.get("weight", 1.0))
    name, colon, rest = rest.partition(":")
    if name == "procedural":
        raise UserError(
            f"mix {text!r}: procedural worlds are written procedural or procedural,weight=8; "
            "--world_heights and --world_widths choose their sizes."
        )
    if not colon or not rest or name not in FORMATS:
        raise UserError(
            f"mix {text!r}: expected NAME:FOLDER with NAME one of {', '.join(FORMATS)}, for "
            "example blendedmvs:data/blendedmvs,weight=2"
        )
    weight, options = numbers.get("weight", 1.0), ReadOptions(size=_size(numbers, text))
    if not is_url(rest):
        return DataSource(name, from_repository(Path(rest).expanduser()), weight, options)
    if name != "shards":
        raise UserError(
            f"mix {text!r}: of a URL only shards are read; write some from a copy on this machine: "
            f"python -m apps.make_shards --dataset_name {name} --datadir FOLDER --out SHARDS"
        )
    return DataSource(name, folder_for(rest), weight, options, url=rest)


def _size(numbers: Mapping[str, float], text: str) -> Size | None:
    size = [numbers[key] for key in ("height", "width") if key in numbers]
    if len(size) == 1 or any(side != round(side) for side in size):
        raise UserError(f"mix {text!r}: height and width go together, in whole pixels.")
    return (round(size[0]), round(size[1])) if size else None


def _positive(word: str, what: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(f"{what} must be a positive number, found {word!r}.")
    return number
