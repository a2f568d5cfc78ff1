"""Pictures of what was rendered, beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from datasets.protocols import SceneTask
from evaluation.rendering import ViewResult
from utils.errors import UserError
from utils.images import colorize, save_image

BRIGHTEST_ERROR = 0.5
"""Absolute difference, mean over colours, from which on errors look alike."""


def save_pictures(folder: Path, task: SceneTask, results: Sequence[ViewResult]) -> None:
    """Write prediction, truth, error and depth of every view to ``folder/<scene>/``.

    All pixels are shown, whether they counted or not. The error is the absolute difference, mean
    over colours, black 0 to bright 0.5. Depths share the scene's near and far; unknown is black.

    Raises:
        UserError: The pictures cannot be written.
    """
    near, far = task.scene.near_far.tolist()
    for result in results:
        view = result.rendered.images
        error = (view.rgb.clamp(0, 1) - view.true_rgb).abs().mean(0)
        pictures = {
            "prediction": view.rgb,
            "truth": view.true_rgb,
            "error": colorize(error, 0.0, BRIGHTEST_ERROR, "inferno"),
            "depth": colorize(view.depth, near, far),
        }
        if (view.true_depth > 0).any():
            known = torch.where(view.true_depth > 0, view.true_depth, torch.nan)
            pictures["true_depth"] = colorize(known, near, far)
        for name, picture in pictures.items():
            path = folder / task.scene.name / f"view{result.target:03d}_{name}.png"
            try:
                save_image(path, picture)
            except OSError as problem:
                raise UserError(
                    f"{path}: cannot write the picture ({problem.strerror}); make room or choose "
                    "another folder with --save_images or --save_dir"
                ) from problem
