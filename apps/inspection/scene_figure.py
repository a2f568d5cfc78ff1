"""Figure of a scene: its cameras, two neighbouring views, and their alignment."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3DCollection
from torch import Tensor

from datasets.formats.options import ReadOptions
from datasets.posed_scene import PosedScene
from datasets.views import Views
from utils.cameras import pixel_grid, project, unproject, view_grid
from utils.figures import draw_frustums
from utils.files import atomic_write
from utils.images import colorize

_SIDE = 240
_NEIGHBOURS = 3
_MAX_FRUSTUMS = 200
_PLANES = 48
_WINDOW = 7


def draw_scene(scene: PosedScene, pair: tuple[int, int], path: Path, title: str) -> None:
    """Write a figure of the cameras, and of a target view with a neighbour warped onto it.

    The depth is from a plane sweep between near and far. With correct cameras the images align.
    """
    target, neighbour = pair
    others = [view for view in scene.ranked_neighbours(target) if view != neighbour]
    views = scene.load_views([target, neighbour, *others[: _NEIGHBOURS - 1]])
    views = views.resized(ReadOptions(longest_side=_SIDE).target_size(views.size))
    depth = plane_sweep(views, scene.range_of([target]))
    warped = warp(views, depth, 1)
    names = [scene.view_names[scene.view_ids.index(view)] for view in pair]
    near, far = scene.range_of([target]).tolist()
    panels = {
        f"target: {names[0]}": views.images[0],
        f"neighbour: {names[1]}": views.images[1],
        "depth by plane sweep": colorize(1 / depth, 1 / far, 1 / near),
        "neighbour warped": warped,
        "checkerboard of warped and target": _checkerboard(warped, views.images[0]),
        "difference": (warped - views.images[0]).abs(),
    }
    figure = Figure(figsize=(18, 9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.add_gridspec(2, 5)
    _draw_cameras(figure.add_subplot(grid[:, :2], projection="3d"), scene)
    for index, (name, image) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[index // 3, 2 + index % 3])
        axes.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy())
        axes.set_title(name[-50:], fontsize=9)
        axes.axis("off")
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=80)


def plane_sweep(views: Views, near_far: Float[Tensor, " 2"]) -> Float[Tensor, "height width"]:
    """Estimate the depth of the first view by plane sweep stereo (Collins, CVPR 1996).

    Planes are evenly spaced in inverse depth.
    """
    near, far = near_far.tolist()
    depths = 1 / torch.linspace(1 / near, 1 / far, _PLANES)
    costs = torch.stack([_matching_cost(views, float(depth)) for depth in depths])
    return depths[costs.argmin(0)]


def warp(
    views: Views, depth: Float[Tensor, "height width"], source: int
) -> Float[Tensor, "3 height width"]:
    """Warp a source view onto the first view, given the first view's depth; grey outside."""
    height, width = views.size
    points = unproject(pixel_grid(height, width, depth.device), depth.flatten(), views.cameras[0])
    pixels, z = project(points, views.cameras[source])
    grid = view_grid(pixels, (height, width)).reshape(1, height, width, 2)
    colors = F.grid_sample(views.images[source][None], grid, align_corners=False)[0]
    inside = (grid[0].abs() <= 1).all(-1) & (z.reshape(height, width) > 0)
    return torch.where(inside, colors, 0.5)


def _matching_cost(views: Views, depth: float) -> Float[Tensor, "height width"]:
    plane = torch.full(views.size, depth)
    costs = []
    for source in range(1, len(views.images)):
        difference = (warp(views, plane, source) - views.images[0]).abs().mean(0)
        costs.append(F.avg_pool2d(difference[None, None], _WINDOW, 1, _WINDOW // 2)[0, 0])
    # Averaging the best half of the views makes the cost robust to occlusion.
    return torch.stack(costs).sort(0).values[: max(1, len(costs) // 2 + 1)].mean(0)


def _checkerboard(
    first: Float[Tensor, "3 height width"], second: Float[Tensor, "3 height width"]
) -> Float[Tensor, "3 height width"]:
    """Alternate squares of both images, so that misaligned edges are visible."""
    rows, columns = (torch.arange(side) // 32 for side in first.shape[1:])
    return torch.where((rows[:, None] + columns) % 2 == 0, first, second)


def _draw_cameras(axes: Any, scene: PosedScene) -> None:  # noqa: ANN401
    cameras = scene.cameras[:: math.ceil(len(scene.view_ids) / _MAX_FRUSTUMS)]
    centers = cameras.centers
    spread = (centers - centers.mean(0)).norm(dim=-1).max().clamp_min(1e-6).item()
    corners = draw_frustums(axes, cameras, scene.image_size, 0.2 * spread, "tab:blue")
    # The upper edge of each image shows whether a camera is upside down.
    axes.add_collection3d(Line3DCollection(list(corners[:, :2]), colors="tab:red", linewidths=1.6))
    axes.plot(*centers.numpy().T, color="grey", linewidth=0.4)
    axes.set_title(f"{len(scene.view_ids)} cameras; red: upper edge of the image", fontsize=9)
    axes.set_aspect("equal")
