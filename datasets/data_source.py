"""One data set of a training run, and its notation on the command line (``--mix``).

This module does not import torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datasets.formats.format_table import FORMATS
from datasets.formats.options import ReadOptions, Size
from datasets.shards.remote_folder import folder_for, is_url
from utils.errors import UserError
from utils.files import from_repository

_OPTION = re.compile(r",(\w+)=([^,=]*)$")
_KEYS = ("weight", "height", "width")


@dataclass(frozen=True)
class DataSource:
    """One data set of a training run."""

    name: str
    """Name of the format."""
    folder: Path
    weight: float = 1.0
    """Share of the batches, relative to the other data sets."""
    options: ReadOptions = field(default_factory=ReadOptions)
    scan: str = ""
    url: str = ""
    """Address of remote shards; ``folder`` then is their local cache."""


def parse_source(text: str) -> DataSource:
    """Parse ``NAME:FOLDER[,weight=2][,height=512,width=640]``.

    The folder may contain any character. Procedural worlds have neither a folder nor a size here:
    ``procedural[,weight=8]``.
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
    name, _, location = rest.partition(":")
    if name == "procedural":
        raise UserError(
            f"mix {text!r}: write procedural or procedural,weight=8 for procedural worlds; "
            "--world_heights and --world_widths set their sizes."
        )
    if not location or name not in FORMATS:
        raise UserError(
            f"mix {text!r}: expected NAME:FOLDER with NAME one of {', '.join(FORMATS)}, for "
            "example blendedmvs:data/blendedmvs,weight=2"
        )
    weight, options = numbers.get("weight", 1.0), ReadOptions(size=_size(numbers, text))
    if not is_url(location):
        return DataSource(name, from_repository(Path(location).expanduser()), weight, options)
    if name != "shards":
        raise UserError(
            f"mix {text!r}: only shards can be read from a URL; write them from a local copy: "
            f"python -m apps.make_shards --dataset_name {name} --datadir FOLDER --out SHARDS"
        )
    return DataSource(name, folder_for(location), weight, options, url=location)


def _size(numbers: Mapping[str, float], text: str) -> Size | None:
    size = [numbers[key] for key in ("height", "width") if key in numbers]
    if len(size) == 1 or any(side != round(side) for side in size):
        raise UserError(f"mix {text!r}: give both height and width, as whole numbers of pixels.")
    return (round(size[0]), round(size[1])) if size else None


def _positive(word: str, name: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(f"{name} must be a positive number, found {word!r}.")
    return number
