"""One picture of a scene: where its cameras stand, what they see, how views fit each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from apps.inspection.sweep import shrink, sweep_depth, warp
from datasets.posed_scene import PosedScene
from utils.cameras import Cameras, unproject
from utils.errors import UserError
from utils.images import colorize

_SIDE = 240
_NEIGHBOURS = 3
_MAX_FRUSTUMS = 200


def draw_scene(scene: PosedScene, pair: tuple[int, int], path: Path, title: str) -> None:
    """Write the picture.

    The warped neighbour has depth from a plane sweep between near and far: with right cameras it
    falls into place, with wrong ones nothing does.

    Args:
        scene: At a size that is quick to look at.
        pair: The target and the neighbour that is warped onto it.
        path: Where to write.
        title: Above the picture.

    Raises:
        UserError: An image is damaged, or the picture cannot be written.
    """
    target, neighbour = pair
    others = [view for view in scene.ranked_neighbours(target) if view != neighbour]
    views = shrink(scene.load_views([target, neighbour, *others[: _NEIGHBOURS - 1]]), _SIDE)
    depth = sweep_depth(views, scene.range_of([target]))
    warped = warp(views, depth, 1)
    near, far = scene.range_of([target]).tolist()
    panels = {
        f"target: {scene.view_names[scene.view_ids.index(target)]}": views.images[0],
        f"neighbour: {scene.view_names[scene.view_ids.index(neighbour)]}": views.images[1],
        "depth by plane sweep": colorize(1 / depth, 1 / far, 1 / near),
        "neighbour warped": warped,
        "warped on top of target": _checkered(warped, views.images[0]),
        "difference": (warped - views.images[0]).abs(),
    }
    figure = Figure(figsize=(18, 9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.add_gridspec(2, 5)
    _draw_cameras(figure.add_subplot(grid[:, :2], projection="3d"), scene)
    for place, (name, image) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[place // 3, 2 + place % 3])
        axes.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy())
        axes.set_title(name[-50:], fontsize=9)
        axes.axis("off")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=80)
    except OSError as error:
        raise UserError(f"{path}: cannot write the picture ({error.strerror}).") from error


def _checkered(
    first: Float[Tensor, "3 height width"], second: Float[Tensor, "3 height width"]
) -> Float[Tensor, "3 height width"]:
    """Alternate squares of both, so that edges show whether they meet."""
    rows, columns = (torch.arange(side) // 32 for side in first.shape[1:])
    return torch.where((rows[:, None] + columns) % 2 == 0, first, second)


def _draw_cameras(axes: Any, scene: PosedScene) -> None:  # noqa: ANN401
    step = -(-len(scene.view_ids) // _MAX_FRUSTUMS)
    cameras = scene.cameras[::step]
    centers = cameras.centers
    spread = (centers - centers.mean(0)).norm(dim=-1).max().clamp_min(1e-6).item()
    corners = frustum_corners(cameras, scene.image_size, 0.2 * spread)
    for center, around in zip(centers.numpy(), corners.numpy(), strict=True):
        ring = np.concatenate([around, around[:1]])
        axes.plot(*ring.T, color="tab:blue", linewidth=0.8)
        for corner in around:
            axes.plot(*np.stack([center, corner]).T, color="tab:blue", linewidth=0.5)
        # The upper edge, so that a camera on its head is seen.
        axes.plot(*around[:2].T, color="tab:red", linewidth=1.6)
    axes.plot(*centers.numpy().T, color="grey", linewidth=0.4)
    axes.set_title(f"{len(scene.view_ids)} cameras; red: upper edge of the image", fontsize=9)
    axes.set_aspect("equal")


def frustum_corners(
    cameras: Cameras, size: tuple[int, int], depth: float
) -> Float[Tensor, "view 4 3"]:
    """Return where the corners of images lie at a depth: upper left, upper right, and round."""
    height, width = size
    pixels = torch.tensor([[0.0, 0], [width, 0], [width, height], [0, height]])
    depths = torch.full((4,), depth)
    return unproject(
        pixels.expand(len(cameras.c2w), 4, 2), depths.expand(len(cameras.c2w), 4), cameras
    )
