"""One data set of a training: its format, its folder and its share."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from datasets.readers import SCENE_FORMATS, ReadOptions, SceneFormat
from utils.errors import UserError

_OPTION = re.compile(r",(\w+)=([^,=]*)$")
_KEYS = ("weight", "height", "width")


@dataclass(frozen=True)
class DataSource:
    """Where samples come from."""

    name: str
    """``dtu``, or a format of ``datasets.readers``."""
    folder: Path
    weight: float = 1.0
    """Share of the batches, relative to the other sources."""
    options: ReadOptions = field(default_factory=ReadOptions)

    @property
    def scene_format(self) -> SceneFormat:
        """The format, for folders of single scenes."""
        return cast(SceneFormat, self.name)


def parse_source(text: str, background: float = 1.0) -> DataSource:
    """Read ``name:folder[,weight=2][,height=512,width=640]``.

    Args:
        text: What the user wrote; the folder may hold any character.
        background: Grey behind transparent pixels.

    Raises:
        UserError: It says something else.
    """
    name, colon, rest = text.partition(":")
    numbers: dict[str, float] = {}
    while match := _OPTION.search(rest):
        if match[1] not in _KEYS:
            raise UserError(f"mix {text!r}: {match[1]!r} is none of {', '.join(_KEYS)}.")
        numbers[match[1]] = _positive(match[2], f"mix {text!r}: {match[1]}")
        rest = rest[: match.start()]
    if name == "procedural":
        raise UserError(
            f"mix {text!r}: procedural worlds are rendered while training and cannot be mixed; "
            "write some with python -m apps.make_procedural_dataset, and mix them as dtu:FOLDER."
        )
    if not colon or not rest or name not in ("dtu", *SCENE_FORMATS):
        raise UserError(
            f"mix {text!r}: expected NAME:FOLDER with NAME one of dtu, {', '.join(SCENE_FORMATS)}, "
            "for example blendedmvs:data/blendedmvs,weight=2"
        )
    size = [numbers[key] for key in ("height", "width") if key in numbers]
    if len(size) == 1 or any(side != round(side) for side in size) or (size and name == "dtu"):
        raise UserError(
            f"mix {text!r}: height and width go together, in whole pixels, and not with dtu."
        )
    wanted = (round(size[0]), round(size[1])) if size else None
    options = ReadOptions(size=wanted, background=background)
    return DataSource(name, Path(rest), numbers.get("weight", 1.0), options)


def _positive(word: str, what: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(f"{what} must be a positive number, found {word!r}.")
    return number
