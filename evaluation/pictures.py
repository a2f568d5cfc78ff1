"""Pictures of a rendered view beside its truth, the same in training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.protocols import SceneTask
from evaluation.rendering import ViewResult
from evaluation.scores import ViewImages
from utils.images import colorize, save_image

_BRIGHTEST_ERROR = 0.5
_REMEDY = "Make room or choose another folder with --save_images or --save_dir."


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
