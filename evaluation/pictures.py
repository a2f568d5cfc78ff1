"""Pictures of rendered views: beside their truth, and beside what other models render."""

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

_BRIGHTEST_ERROR = 0.5
_REMEDY = "Make room or choose another folder with --save_images or --save_dir."
_SOURCES = 3
"""Sources that a comparison shows; a model may read more."""


def comparison_panels(
    view: ViewImages, near_far: Sequence[float]
) -> dict[str, Float[Tensor, "3 height width"]]:
    """Return truth, prediction, error, depth and, where it is known, true depth as pictures.

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
    """Colour absolute differences, mean over colours, from black (0) to bright (0.5)."""
    return colorize(difference.abs().mean(0), 0.0, _BRIGHTEST_ERROR, "inferno")


def save_pictures(folder: Path, task: SceneTask, results: Sequence[ViewResult]) -> None:
    """Write ``comparison_panels`` of every view to ``folder/<scene>/``.

    All pixels are shown, whether they counted or not.
    """
    near_far = task.scene.near_far.tolist()
    for result in results:
        for name, picture in comparison_panels(result.images, near_far).items():
            path = folder / task.scene.name / f"view{result.target:03d}_{name}.png"
            save_image(path, picture, _REMEDY)


def comparison_sheet(
    scene: PosedScene, results: Mapping[str, Sequence[ViewResult]], height: int
) -> Float[Tensor, "3 rows columns"]:
    """Compare models of one scene with the truth, and with each other.

    A single model makes a strip of each view: sources, truth, prediction, error and depth. Several
    make three rows of each view, with a column for each model; the sources are the first one's.
    All depths share one range, whatever model and view. ``results`` are by the model's name, with
    the same views in the same order for all. Pictures that are smaller than ``height`` stay so.
    """
    return contact_sheet([row for rows in _view_rows(scene, results, height) for row in rows])


def comparison_frames(
    scene: PosedScene, results: Mapping[str, Sequence[ViewResult]], height: int
) -> list[Float[Tensor, "3 rows columns"]]:
    """Return the parts of ``comparison_sheet``, one for each view, for a video."""
    return [contact_sheet(rows) for rows in _view_rows(scene, results, height)]


def _view_rows(
    scene: PosedScene, results: Mapping[str, Sequence[ViewResult]], height: int
) -> Iterator[list[Sequence[Panel | None]]]:
    """Yield the rows of each view."""
    views = [result.images for model in results.values() for result in model]
    shown = robust_range(
        pair
        for view in views
        for pair in ((view.depth, view.solid), (view.true_depth, view.true_depth > 0))
    )
    for same_view in zip(*results.values(), strict=True):
        models = [
            _model_panels(name, result, height, shown)
            for name, result in zip(results, same_view, strict=True)
        ]
        first, view = same_view[0], same_view[0].images
        numbers = first.sources[:_SOURCES]
        images = scene.load_views(numbers).images
        sources = [
            Panel(_shrink(image, height), f"source {number}")
            for number, image in zip(numbers, images, strict=True)
        ]
        truth = Panel(_shrink(view.true_rgb, height), f"truth, view {first.target}")
        known = view.true_depth > 0
        true_depth = Panel(_depth(view.true_depth, known, height, shown), "true depth")
        true_depth = true_depth if known.any() else None
        bar = Panel(color_bar(truth.picture.shape[-2], shown, scene.unit))
        if len(models) == 1:
            yield [[*sources, truth, *models[0], *filter(None, [true_depth]), bar]]
        else:
            left = [[*sources, None, None][:_SOURCES], [truth, None, true_depth]]
            yield list(zip(*left, *models, [None, None, bar], strict=True))


def _model_panels(name: str, result: ViewResult, height: int, shown: DepthRange) -> list[Panel]:
    view, score = result.images, result.scores["psnr"]
    rgb = view.rgb.clamp(0, 1)
    error = _shrink((rgb - view.true_rgb).abs(), height)
    return [
        Panel(_shrink(rgb, height), name if score is None else f"{name}, {score:.1f} dB"),
        Panel(error_picture(error), "error"),
        Panel(_depth(view.depth, view.solid, height, shown), "depth"),
    ]


def _depth(
    depth: Float[Tensor, "height width"],
    valid: Bool[Tensor, "height width"],
    height: int,
    shown: DepthRange,
) -> Float[Tensor, "3 rows columns"]:
    """Shrink to single pixels before colouring: the mean of two depths would be a third one."""
    both = _shrink(torch.stack([depth, valid.to(depth)]), height, "nearest-exact")
    return depth_picture(both[0], both[1] > 0, shown)


def _shrink(
    image: Float[Tensor, "channel height width"], height: int, mode: str = "bilinear"
) -> Float[Tensor, "channel rows columns"]:
    scale = min(height / image.shape[-2], 1.0)
    size = (round(image.shape[-2] * scale), round(image.shape[-1] * scale))
    return F.interpolate(image[None], size, mode=mode, antialias=mode == "bilinear")[0]
