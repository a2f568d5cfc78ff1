"""Cameras drawn in three dimensions with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3DCollection
from torch import Tensor

from utils.cameras import Cameras, unproject

_FRUSTUM_LENGTH = 0.12
"""Of a drawn frustum, relative to the extent of the cameras."""
_NEAR_FOCUS = 2.0
"""A focus farther away than this many extents of the cameras would shrink them to a dot."""
_SHOWN = 12
"""Frustums along a path."""


def plot_cameras(
    sources: Cameras,
    size: tuple[int, int],
    path: Cameras | None = None,
    up: Float[Tensor, " 3"] | None = None,
    focus: Float[Tensor, " 3"] | None = None,
    title: str = "",
) -> Figure:
    """Draw source cameras and, if given, a path with some of its cameras and what it looks at.

    Args:
        sources: One batch axis.
        size: Height and width of all images.
        path: Cameras of the frames, in order.
        up: Drawn upwards; the sources' mean up if not given.
        focus: A point to mark, unless it is far away.
        title: Stands above.
    """
    up = -sources.c2w[:, :3, 1].mean(0) if up is None else up
    turn = _upright(up.float())
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(projection="3d")
    centers = sources.centers if path is None else torch.cat([sources.centers, path.centers])
    length = _FRUSTUM_LENGTH * max((centers.amax(0) - centers.amin(0)).max().item(), 1e-6)
    _draw(axes, _frustums(sources, size, length) @ turn.T, "0.45")
    shown = centers @ turn.T
    if path is not None:
        line = (path.centers @ turn.T).tolist()
        axes.plot(*zip(*line, strict=True), color="tab:red")
        some = torch.linspace(0, len(line) - 1, min(_SHOWN, len(line))).round().long()
        _draw(axes, _frustums(path[some], size, length) @ turn.T, "tab:orange")
    if focus is not None:
        mark = turn @ focus.float()
        spread = (shown.amax(0) - shown.amin(0)).norm()
        if (mark - shown.mean(0)).norm() < _NEAR_FOCUS * spread:
            axes.plot(*([value] for value in mark.tolist()), marker="x", color="tab:blue")
            shown = torch.cat([shown, mark[None]])
    _equal_scales(axes, shown)
    axes.set_title(title)
    return figure


def plot_images(
    images: Float[Tensor, "view 3 height width"], titles: Sequence[str] = (), columns: int = 6
) -> Figure:
    """Lay out images in rows, with a title over each if there are titles."""
    rows = math.ceil(len(images) / columns)
    columns = min(columns, len(images))
    height, width = images.shape[-2:]
    figure = Figure(
        figsize=(2.2 * columns, (2.2 * height / width + 0.3) * rows), layout="constrained"
    )
    FigureCanvasAgg(figure)
    for place, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(image.clamp(0, 1).permute(1, 2, 0).cpu().numpy())
        axes.set_axis_off()
        axes.set_title(titles[place] if titles else "", fontsize=8)
    return figure


def _frustums(cameras: Cameras, size: tuple[int, int], length: float) -> Float[Tensor, "line 2 3"]:
    height, width = size
    corners = torch.tensor([[0.0, 0], [width, 0], [width, height], [0, height]])
    corners = corners.to(cameras.c2w).expand(*cameras.shape, 4, 2)
    depths = torch.full(corners.shape[:-1], length).to(corners)
    ends = unproject(corners, depths, cameras)
    centers = cameras.centers[:, None].expand_as(ends)
    edges = torch.stack([ends, ends.roll(-1, 1)], 2)
    return torch.cat([torch.stack([centers, ends], 2), edges], 1).flatten(0, 1)


def _draw(axes: Axes, lines: Float[Tensor, "line 2 3"], color: str) -> None:
    axes.add_collection(Line3DCollection(lines.tolist(), colors=color, linewidths=0.7))


def _upright(up: Float[Tensor, " 3"]) -> Float[Tensor, "3 3"]:
    """Return a rotation that brings ``up`` to matplotlib's z axis."""
    up = torch.nn.functional.normalize(up, dim=0)
    helper = torch.eye(3)[up.abs().argmin()]
    x = torch.nn.functional.normalize(torch.linalg.cross(helper, up), dim=0)
    return torch.stack([x, torch.linalg.cross(up, x), up])


def _equal_scales(axes: Axes, points: Float[Tensor, "point 3"]) -> None:
    low, high = points.amin(0), points.amax(0)
    middle, half = (low + high) / 2, max((high - low).max().item(), 1e-6) * 0.55
    for name, value in zip("xyz", middle.tolist(), strict=True):
        getattr(axes, f"set_{name}lim")(value - half, value + half)
        getattr(axes, f"set_{name}ticklabels")([])
