"""Depth maps in colour with a colour bar, labelled contact sheets, plots of cameras."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D
from mpl_toolkits.mplot3d.art3d import Line3DCollection
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn.functional import pad

from utils.cameras import Cameras, LengthUnit, unproject
from utils.images import colorize, from_bytes

_QUANTILES = (0.02, 0.98)
"""Depth quantiles at the ends of the colour map; excludes outliers."""
_PIXELS_PER_FRAME = 10_000
"""Pixels of each frame that the quantiles are computed from."""
_CHECKER = 4
"""Side in pixels of the squares that mark pixels without depth."""
_TICKS = 5
_MIN_BAR_WIDTH = 6
_GAP = 3
"""Pixels between the panels of a sheet."""
_MAX_FOCUS_DISTANCE = 2.0
"""In extents of the cameras; a more distant focus would shrink them to a dot and is not drawn."""
_FRUSTUMS = 12
"""Number of cameras drawn along a path."""


@dataclass(frozen=True)
class DepthRange:
    """Depths at the two ends of the colour map, in the scene's unit."""

    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    """An image and the label above it."""

    picture: Float[Tensor, "3 height width"]
    label: str = ""


def robust_range(
    frames: Iterable[tuple[Float[Tensor, "height width"], Bool[Tensor, "height width"]]],
) -> DepthRange:
    """Return the range between low and high quantiles of the depths in (depths, valid) pairs."""
    sampled = []
    for depths, valid in frames:
        values = depths[valid & depths.isfinite()].float()
        sampled.append(values[:: max(1, len(values) // _PIXELS_PER_FRAME)])
    values = torch.cat(sampled).numpy() if sampled else np.zeros(0)
    if not len(values):
        return DepthRange(0.0, 1.0)
    low, high = np.quantile(values, _QUANTILES).tolist()
    margin = max(0.05 * (high - low), 1e-3 * abs(high), 1e-9)
    return DepthRange(max(low - margin, 0.0), high + margin)


def depth_picture(
    depths: Float[Tensor, "height width"],
    valid: Bool[Tensor, "height width"],
    shown: DepthRange,
) -> Float[Tensor, "3 height width"]:
    """Colour a depth map; invalid pixels become a grey chequerboard."""
    rows = torch.arange(depths.shape[0], device=depths.device)[:, None] // _CHECKER
    columns = torch.arange(depths.shape[1], device=depths.device) // _CHECKER
    mark = torch.where((rows + columns) % 2 == 0, 0.35, 0.55)
    colors = colorize(depths, shown.low, shown.high)
    return torch.where(valid & depths.isfinite(), colors, mark)


def color_bar(
    height: int, shown: DepthRange, unit: LengthUnit | None = None
) -> Float[Tensor, "3 height width"]:
    """Draw the colour map, near at the bottom, with ticks and unit if ``height`` allows."""
    if height < 24:
        return _gradient(height, _MIN_BAR_WIDTH)
    unit = unit or LengthUnit()
    font_size = max(8, min(height // 14, 22))
    font = ImageFont.load_default(font_size)
    top, bottom = int(font_size * 1.8), height - max(font_size // 2, 2)
    bar = max(_MIN_BAR_WIDTH, font_size)
    values = np.linspace(shown.high, shown.low, _TICKS) * unit.factor
    # Enough digits to distinguish the ticks.
    step = abs(values[0] - values[-1]) / (_TICKS - 1)
    digits = int(np.clip(np.ceil(-np.log10(max(step, 1e-9))) + 1, 0, 4)) if step < 10 else 0
    texts = [f"{value:.{digits}f}" for value in values]
    width = bar + 6 + max(int(font.getlength(text)) for text in [*texts, unit.name]) + 4
    image = Image.new("RGB", (width, height), "white")
    colors = _gradient(bottom - top, bar).permute(1, 2, 0)
    image.paste(Image.fromarray((colors * 255).round().byte().numpy()), (2, top))
    draw = ImageDraw.Draw(image)
    draw.text((2, 1), unit.name, fill="black", font=font)
    for y, text in zip(np.linspace(top, bottom - 1, _TICKS), texts, strict=True):
        draw.line([(2 + bar, y), (5 + bar, y)], fill="black")
        draw.text((7 + bar, y), text, fill="black", font=font, anchor="lm")
    return from_bytes(np.asarray(image))


def contact_sheet(
    rows: Sequence[Sequence[Panel | None]], label_size: int = 13
) -> Float[Tensor, "3 height width"]:
    """Arrange rows of panels on white, centred in their cells; ``None`` is an empty cell."""
    widths = [
        max((panel.picture.shape[-1] for panel in column if panel), default=1)
        for column in zip_longest(*rows)
    ]
    bands = []
    for row in rows:
        height = max((panel.picture.shape[-2] for panel in row if panel), default=1)
        labelled = any(panel and panel.label for panel in row)
        cells = []
        for panel, width in zip_longest(row, widths):
            cell = (
                _centered(panel.picture, height, width) if panel else torch.ones(3, height, width)
            )
            if labelled:
                label = panel.label if panel else ""
                cell = torch.cat([label_strip(label, width, label_size), cell], -2)
            cells.append(pad(cell, (0, _GAP), value=1.0))
        bands.append(pad(torch.cat(cells, -1)[..., :-_GAP], (0, 0, 0, _GAP), value=1.0))
    return torch.cat(bands, -2)[:, :-_GAP]


def label_strip(text: str, width: int, size: int) -> Float[Tensor, "3 height width"]:
    """Render one centred line, black on white; the font shrinks to fit ``width``."""
    image = Image.new("RGB", (width, round(1.5 * size)), "white")
    font = ImageFont.load_default(size)
    while size > 6 and font.getlength(text) > width:
        size -= 1
        font = ImageFont.load_default(size)
    middle = (width / 2, image.height / 2)
    ImageDraw.Draw(image).text(middle, text, fill="black", font=font, anchor="mm")
    return from_bytes(np.asarray(image))


def plot_cameras(
    sources: Cameras,
    size: tuple[int, int],
    path: Cameras,
    up: Float[Tensor, " 3"],
    focus: Float[Tensor, " 3"],
    title: str = "",
) -> Figure:
    """Plot source cameras, a camera path with some frustums, and its focus unless far away.

    ``size`` is the height and width of all images; ``up`` is the vertical direction of the plot.
    """
    upright = Rotation.align_vectors([[0.0, 0, 1]], up.double().numpy()[None])[0]
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(projection="3d")
    centers = torch.cat([sources.centers, path.centers])
    length = 0.12 * max((centers.amax(0) - centers.amin(0)).max().item(), 1e-6)
    positions, mark = upright.apply(centers.numpy()), upright.apply(focus.numpy())
    draw_frustums(axes, sources, size, length, "0.45", upright)
    axes.plot(*positions[len(sources.c2w) :].T, color="tab:red")
    drawn = torch.linspace(0, len(path.c2w) - 1, min(_FRUSTUMS, len(path.c2w))).round().long()
    draw_frustums(axes, path[drawn], size, length, "tab:orange", upright)
    extent = np.linalg.norm(np.ptp(positions, 0))
    if np.linalg.norm(mark - positions.mean(0)) < _MAX_FOCUS_DISTANCE * extent:
        axes.plot(*mark[:, None], marker="x", color="tab:blue")
    axes.set(title=title, xticklabels=[], yticklabels=[], zticklabels=[])
    axes.set_aspect("equal")
    return figure


def draw_frustums(
    axes: Axes3D,
    cameras: Cameras,
    size: tuple[int, int],
    length: float,
    color: str,
    rotation: Rotation | None = None,
) -> np.ndarray:
    """Draw view frustums of depth ``length`` in world coordinates turned by ``rotation``.

    Return the far corners, clockwise from the upper left, with shape (camera, 4, 3).
    """
    height, width = size
    pixels = torch.tensor([[0.0, 0], [width, 0], [width, height], [0, height]])
    pixels = pixels.to(cameras.c2w).expand(*cameras.shape, 4, 2)
    points = unproject(pixels, torch.full_like(pixels[..., 0], length), cameras)
    points = torch.cat([points, cameras.centers[:, None]], 1).flatten(0, 1).numpy()
    if rotation is not None:
        points = rotation.apply(points)
    points = points.reshape(-1, 5, 3)
    edges = points[:, [[0, 1], [1, 2], [2, 3], [3, 0], [0, 4], [1, 4], [2, 4], [3, 4]]]
    axes.add_collection3d(
        Line3DCollection(list(edges.reshape(-1, 2, 3)), colors=color, linewidths=1.0)
    )
    axes.auto_scale_xyz(*points.reshape(-1, 3).T)
    return points[:, :4]


def _gradient(height: int, width: int) -> Float[Tensor, "3 height width"]:
    return colorize(torch.linspace(1, 0, height)[:, None].expand(-1, width), 0.0, 1.0)


def _centered(
    picture: Float[Tensor, "3 rows columns"], height: int, width: int
) -> Float[Tensor, "3 height width"]:
    rows, columns = picture.shape[-2:]
    top, left = (height - rows) // 2, (width - columns) // 2
    margins = (left, width - columns - left, top, height - rows - top)
    return pad(picture.float().cpu(), margins, value=1.0)
