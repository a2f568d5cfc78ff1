"""Labelled pictures laid out on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_GAP = 3
"""Pixels between neighbours."""
_WHITE = 1.0


@dataclass(frozen=True)
class Panel:
    """A picture and what is written above it."""

    picture: Float[Tensor, "3 height width"]
    label: str = ""


def contact_sheet(
    rows: Sequence[Sequence[Panel | None]], label_size: int = 13
) -> Float[Tensor, "3 height width"]:
    """Lay out rows of panels on white, each centred in its cell; ``None`` leaves a cell empty.

    A row is as high as its highest picture, a column as wide as its widest; rows may end early.

    Args:
        rows: From top to bottom, their panels from left to right.
        label_size: Height of the letters; a label that is too wide for its column is shrunk.
    """
    widths = [max(_width(panel) for panel in column) for column in _columns(rows)]
    return torch.cat(
        [part for row in rows for part in (_row(row, widths, label_size), _gap(widths))][:-1], -2
    )


def label_strip(text: str, width: int, size: int) -> Float[Tensor, "3 height width"]:
    """Write one centred line, black on white, in smaller letters if it is too wide."""
    image = Image.new("RGB", (width, round(1.5 * size)), "white")
    font = ImageFont.load_default(size)
    while size > 6 and font.getlength(text) > width:
        size -= 1
        font = ImageFont.load_default(size)
    place = (width / 2, image.height / 2)
    ImageDraw.Draw(image).text(place, text, fill="black", font=font, anchor="mm")
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255


def _columns(rows: Sequence[Sequence[Panel | None]]) -> list[list[Panel | None]]:
    count = max(len(row) for row in rows)
    return [[row[place] for row in rows if place < len(row)] for place in range(count)]


def _width(panel: Panel | None) -> int:
    return panel.picture.shape[-1] if panel else 1


def _row(
    row: Sequence[Panel | None], widths: Sequence[int], label_size: int
) -> Float[Tensor, "3 height width"]:
    panels = [*row, *[None] * (len(widths) - len(row))]
    height = max([panel.picture.shape[-2] for panel in panels if panel] or [1])
    labelled = any(panel and panel.label for panel in panels)
    cells = []
    for panel, width in zip(panels, widths, strict=True):
        cell = _centred(panel, height, width)
        if labelled:
            text = panel.label if panel else ""
            cell = torch.cat([label_strip(text, width, label_size), cell], -2)
        cells += [cell, torch.full((3, cell.shape[-2], _GAP), _WHITE)]
    return torch.cat(cells[:-1], -1)


def _centred(panel: Panel | None, height: int, width: int) -> Float[Tensor, "3 height width"]:
    cell = torch.full((3, height, width), _WHITE)
    if panel:
        rows, columns = panel.picture.shape[-2:]
        top, left = (height - rows) // 2, (width - columns) // 2
        cell[:, top : top + rows, left : left + columns] = panel.picture.float().cpu()
    return cell


def _gap(widths: Sequence[int]) -> Float[Tensor, "3 height width"]:
    return torch.full((3, _GAP, sum(widths) + _GAP * (len(widths) - 1)), _WHITE)
