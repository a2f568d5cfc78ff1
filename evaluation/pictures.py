"""Pictures of a rendered view beside its truth, the same in training and evaluation.

Errors are absolute differences, mean over colours, from black (0) to bright (0.5). Depths are
coloured between near and far; unknown depth is black.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from evaluation.rendering import ViewResult
from evaluation.tasks import SceneTask
from utils.images import colorize, save_image

_BRIGHTEST_ERROR = 0.5
_REMEDY = "Make room or choose another folder with --save_images or --save_dir."


def view_strip(
    rgb: Float[Tensor, "3 height width"],
    depth: Float[Tensor, "height width"],
    truth: Float[Tensor, "3 height width"],
    near_far: Sequence[float],
) -> Float[Tensor, "3 height strip_width"]:
    """Lay out truth, prediction, error and depth side by side."""
    panels = [truth, rgb.clamp(0, 1), error_picture(rgb, truth), colorize(depth, *near_far)]
    return torch.cat(panels, -1)


def error_picture(
    rgb: Float[Tensor, "3 height width"], truth: Float[Tensor, "3 height width"]
) -> Float[Tensor, "3 height width"]:
    """Colour the absolute difference, mean over colours."""
    error = (rgb.clamp(0, 1) - truth).abs().mean(0)
    return colorize(error, 0.0, _BRIGHTEST_ERROR, "inferno")


def save_pictures(folder: Path, task: SceneTask, results: Sequence[ViewResult]) -> None:
    """Write prediction, truth, error and depth of every view to ``folder/<scene>/``.

    All pixels are shown, whether they counted or not.

    Raises:
        UserError: The pictures cannot be written.
    """
    near_far = task.scene.near_far.tolist()
    for result in results:
        view = result.images
        known = view.true_depth > 0
        pictures = {
            "prediction": view.rgb,
            "truth": view.true_rgb,
            "error": error_picture(view.rgb, view.true_rgb),
            "depth": colorize(view.depth, *near_far),
        }
        if known.any():
            true_depth = torch.where(known, view.true_depth, torch.nan)
            pictures["true_depth"] = colorize(true_depth, *near_far)
        for name, picture in pictures.items():
            path = folder / task.scene.name / f"view{result.target:03d}_{name}.png"
            save_image(path, picture, _REMEDY)
