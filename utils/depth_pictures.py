"""Depth in colours that can be compared: one colour map, a robust range, a bar with units."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from utils.images import colorize

COLOR_MAP = "turbo"
_TAILS = (0.02, 0.98)
"""Quantiles that become the ends of the range: single wrong pixels do not decide about it."""
_MARGIN = 0.05
_CHECKER = 4
"""Side, in pixels, of the squares that mark pixels without a depth."""
_DARK, _LIGHT = 0.35, 0.55
_SAMPLED = 10_000
"""Pixels of each frame that are asked for the range."""
_TICKS = 5
_NARROWEST = 6
"""Least width of a bar's colours, in pixels."""
_LEAST_LABELLED = 24
"""Rows below which a bar has no room for numbers."""


@dataclass(frozen=True)
class LengthUnit:
    """The unit in which depths are shown."""

    name: str = "scene units"
    factor: float = 1.0
    """Shown = factor * depth in the scene's own unit."""


@dataclass(frozen=True)
class DepthRange:
    """Which depths the two ends of the colour map stand for, in the scene's unit."""

    low: float
    high: float


def robust_range(
    frames: Iterable[tuple[Float[Tensor, "height width"], Bool[Tensor, "height width"]]],
) -> DepthRange:
    """Return the range that nearly all valid depths of all frames lie in.

    Args:
        frames: Depths, and which of them are valid. Each counts alike.
    """
    kept = []
    for depths, valid in frames:
        values = depths[valid & depths.isfinite()].float()
        kept.append(values[:: max(1, len(values) // _SAMPLED)])
    values = torch.cat(kept).numpy() if kept else np.zeros(0)
    if not len(values):
        return DepthRange(0.0, 1.0)
    low, high = np.quantile(values, _TAILS).tolist()
    margin = max(_MARGIN * (high - low), 1e-3 * abs(high), 1e-9)
    return DepthRange(max(low - margin, 0.0), high + margin)


def depth_picture(
    depths: Float[Tensor, "height width"],
    valid: Bool[Tensor, "height width"],
    shown: DepthRange,
) -> Float[Tensor, "3 height width"]:
    """Colour depths; pixels without a valid one become a grey chequerboard."""
    rows = torch.arange(depths.shape[0], device=depths.device)[:, None] // _CHECKER
    columns = torch.arange(depths.shape[1], device=depths.device) // _CHECKER
    mark = torch.where((rows + columns) % 2 == 0, _DARK, _LIGHT)
    colors = colorize(depths, shown.low, shown.high, COLOR_MAP)
    return torch.where(valid & depths.isfinite(), colors, mark)


def color_bar(
    height: int, shown: DepthRange, unit: LengthUnit | None = None
) -> Float[Tensor, "3 height width"]:
    """Draw the colour map with numbers and the unit, near at the bottom; it widens with height.

    A bar too low for numbers has colours only.
    """
    if height < _LEAST_LABELLED:
        return _shades(height, _NARROWEST)
    unit = unit or LengthUnit()
    font_size = max(8, min(height // 14, 22))
    font = ImageFont.load_default(font_size)
    top, bottom = int(font_size * 1.8), height - max(font_size // 2, 2)
    bar = max(_NARROWEST, font_size)
    values = np.linspace(shown.high, shown.low, _TICKS) * unit.factor
    texts = [_format(value, values) for value in values]
    width = bar + 6 + max(int(font.getlength(text)) for text in [*texts, unit.name]) + 4
    image = Image.new("RGB", (width, height), "white")
    colors = _shades(bottom - top, bar).permute(1, 2, 0)
    image.paste(Image.fromarray((colors * 255).round().byte().numpy()), (2, top))
    draw = ImageDraw.Draw(image)
    draw.text((2, 1), unit.name, fill="black", font=font)
    for place, text in zip(np.linspace(top, bottom - 1, _TICKS), texts, strict=True):
        draw.line([(2 + bar, place), (5 + bar, place)], fill="black")
        draw.text((7 + bar, place), text, fill="black", font=font, anchor="lm")
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255


def _shades(height: int, width: int) -> Float[Tensor, "3 height width"]:
    """Draw the colour map, near at the bottom."""
    shades = torch.linspace(1, 0, height)[:, None].expand(-1, width)
    return colorize(shades, 0.0, 1.0, COLOR_MAP)


def _format(value: float, values: np.ndarray) -> str:
    """Write as many digits as tell the ticks apart."""
    step = abs(values[0] - values[-1]) / (len(values) - 1)
    digits = int(np.clip(np.ceil(-np.log10(max(step, 1e-9))) + 1, 0, 4))
    return f"{value:.{digits if step < 10 else 0}f}"
