"""Comparison pictures of rendered views: with ground truth, and of several models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float
from torch import Tensor

from datasets.posed_scene import PosedScene
from datasets.protocols import SceneTask
from evaluation.rendering import ViewResult
from evaluation.scores import ViewImages
from utils.figures import DepthRange, Panel, color_bar, contact_sheet, depth_picture, robust_range
from utils.images import colorize, save_image

_MAX_ERROR = 0.5
"""Colour error at the upper end of the colour map."""
_REMEDY = "Free space or choose another folder with --save_images or --save_dir."
_SOURCES = 3
"""Source views in a comparison; a model may use more."""


def comparison_panels(
    view: ViewImages, near_far: Sequence[float]
) -> dict[str, Float[Tensor, "3 height width"]]:
    """Return pictures of truth, prediction, error, depth and, if known, true depth.

    Depths are coloured between near and far; unknown depth is black.
    """
    near, far = near_far
    panels = {
        "truth": view.true_rgb,
        "prediction": view.rgb.clamp(0, 1),
        "error": error_picture(view.rgb.clamp(0, 1) - view.true_rgb),
        "depth": colorize(view.depth, near, far),
    }
    known = view.true_depth > 0
    if known.any():
        true_depth = torch.where(known, view.true_depth, torch.nan)
        panels["true_depth"] = colorize(true_depth, near, far)
    return panels


def error_picture(difference: Float[Tensor, "3 height width"]) -> Float[Tensor, "3 height width"]:
    """Colour the mean absolute difference of the channels, from 0 (black) to 0.5."""
    return colorize(difference.abs().mean(0), 0.0, _MAX_ERROR, "inferno")


def save_pictures(folder: Path, task: SceneTask, results: Sequence[ViewResult]) -> None:
    """Write ``comparison_panels`` of every view, with all pixels, to ``folder/<scene>/``."""
    near_far = task.scene.near_far.tolist()
    for result in results:
        for name, picture in comparison_panels(result.images, near_far).items():
            path = folder / task.scene.name / f"view{result.target:03d}_{name}.png"
            save_image(path, picture, _REMEDY)


def comparison_sheet(
    scene: PosedScene, results: Mapping[str, Sequence[ViewResult]], height: int
) -> Float[Tensor, "3 rows columns"]:
    """Return a contact sheet that compares models of one scene with the truth.

    One model gives a row per view: sources, truth, prediction, error and depth. Several models give
    three rows per view with a column for each model, and the sources of the first model. All depths
    share one range. ``results`` maps names of models to the same views in the same order. Pictures
    higher than ``height`` are shrunk.
    """
    return contact_sheet([row for rows in _view_rows(scene, results, height) for row in rows])


def comparison_frames(
    scene: PosedScene, results: Mapping[str, Sequence[ViewResult]], height: int
) -> list[Float[Tensor, "3 rows columns"]]:
    """Return one part of ``comparison_sheet`` per view, as frames of a video."""
    return [contact_sheet(rows) for rows in _view_rows(scene, results, height)]


def _view_rows(
    scene: PosedScene, results: Mapping[str, Sequence[ViewResult]], height: int
) -> Iterator[list[Sequence[Panel | None]]]:
    """Yield the rows of panels of each view."""
    views = [result.images for model in results.values() for result in model]
    depths = [(view.depth, view.solid) for view in views]
    true_depths = [(view.true_depth, view.true_depth > 0) for view in views]
    depth_range = robust_range([*depths, *true_depths])
    for same_view in zip(*results.values(), strict=True):
        models = [
            _model_panels(name, result, height, depth_range)
            for name, result in zip(results, same_view, strict=True)
        ]
        first, view = same_view[0], same_view[0].images
        ids = first.sources[:_SOURCES]
        images = scene.load_views(ids).images
        sources = [
            Panel(_shrink(image, height), f"source {view_id}")
            for view_id, image in zip(ids, images, strict=True)
        ]
        truth = Panel(_shrink(view.true_rgb, height), f"truth, view {first.target}")
        known = view.true_depth > 0
        true_depth = None
        if known.any():
            true_depth = Panel(_depth(view.true_depth, known, height, depth_range), "true depth")
        bar = Panel(color_bar(truth.picture.shape[-2], depth_range, scene.unit))
        if len(models) == 1:
            yield [[*sources, truth, *models[0], *filter(None, [true_depth]), bar]]
        else:
            left = [[*sources, None, None][:_SOURCES], [truth, None, true_depth]]
            yield list(zip(*left, *models, [None, None, bar], strict=True))


def _model_panels(
    name: str, result: ViewResult, height: int, depth_range: DepthRange
) -> list[Panel]:
    view, score = result.images, result.scores["psnr"]
    rgb = view.rgb.clamp(0, 1)
    error = _shrink((rgb - view.true_rgb).abs(), height)
    return [
        Panel(_shrink(rgb, height), name if score is None else f"{name}, {score:.1f} dB"),
        Panel(error_picture(error), "error"),
        Panel(_depth(view.depth, view.solid, height, depth_range), "depth"),
    ]


def _depth(
    depth: Float[Tensor, "height width"],
    valid: Bool[Tensor, "height width"],
    height: int,
    depth_range: DepthRange,
) -> Float[Tensor, "3 rows columns"]:
    """Shrink by nearest neighbour, as means of depths would be wrong, and colour."""
    small, valid_small = _shrink(torch.stack([depth, valid.to(depth)]), height, "nearest-exact")
    return depth_picture(small, valid_small > 0, depth_range)


def _shrink(
    image: Float[Tensor, "channel height width"], height: int, mode: str = "bilinear"
) -> Float[Tensor, "channel rows columns"]:
    scale = min(height / image.shape[-2], 1.0)
    size = (round(image.shape[-2] * scale), round(image.shape[-1] * scale))
    return F.interpolate(image[None], size, mode=mode, antialias=mode == "bilinear")[0]
