"""How good a scene is on its test views: figures, a curve over time, pictures."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.views import Views
from evaluation.rendering import ViewResult
from evaluation.scores import (
    ImageDistance,
    Region,
    ViewImages,
    counted_pixels,
    describe_region,
    view_scores,
)
from models.scene_model import SceneModel
from utils.images import colorize, save_image
from utils.metrics import psnr

_BRIGHTEST_ERROR = 0.5


class TestViews:
    """The test views of a scene, on the device."""

    __test__ = False

    def __init__(
        self, views: Views, ids: Sequence[int], region: Region, chunk: int, bf16: bool = False
    ) -> None:
        """Keep the views.

        Args:
            views: ``(view,)``.
            ids: Their numbers.
            region: Pixels that count.
            chunk: Rays in one go.
            bf16: Whether networks compute in bfloat16.
        """
        self.views, self.ids, self.region = views, tuple(ids), region
        self.chunk, self.bf16 = chunk, bf16

    def render(self, scene: SceneModel) -> list[ViewImages]:
        """Render every view beside its truth."""
        views = self.views
        with torch.autocast(views.images.device.type, torch.bfloat16, enabled=self.bf16):
            images = scene.render_images(views.cameras, views.size, self.chunk)
        return [
            ViewImages(
                rgb=images.rgb[place].float(),
                depth=images.depth[place].float(),
                opacity=images.opacity[place].float(),
                true_rgb=views.images[place],
                true_depth=views.depths[place],
                mask=views.masks[place],
            )
            for place in range(len(self.ids))
        ]

    def mean_psnr(self, rendered: Sequence[ViewImages]) -> float:
        """Return the mean of what ``view_scores`` calls PSNR, over the views that have pixels.

        NaN if a rendering is not finite, or no pixel counts.
        """
        values = []
        for view in rendered:
            inner = view.cropped(self.region.border)
            counted = counted_pixels(inner, self.region)
            if counted.any():
                values.append(psnr(inner.rgb.clamp(0, 1), inner.true_rgb, counted))
        return torch.stack(values).mean().item() if values else math.nan

    def results(
        self,
        scene: SceneModel,
        perceptual: ImageDistance | None = None,
        train_ids: Sequence[int] | None = None,
    ) -> list[ViewResult]:
        """Render and measure every view as evaluation does.

        Args:
            scene: The scene.
            perceptual: Measures LPIPS, if its weights are there.
            train_ids: Numbers of the training views, by which results name their sources; their
                places among the training views unless given.
        """
        names = range(len(scene.images)) if train_ids is None else train_ids
        chosen = scene.sources_of(self.views.cameras, self.views.size).tolist()
        started = time.perf_counter()
        rendered = [_on_cpu(view) for view in self.render(scene)]
        seconds = (time.perf_counter() - started) / len(rendered)
        return [
            ViewResult(
                target=number,
                sources=tuple(names[place] for place in sources),
                region=describe_region(images, self.region),
                scores=view_scores(images, self.region, perceptual),
                images=images,
                encode_seconds=0.0,
                render_seconds=seconds,
            )
            for number, sources, images in zip(self.ids, chosen, rendered, strict=True)
        ]


def save_strip(path: Path, view: ViewImages, near_far: Sequence[float]) -> None:
    """Write truth, prediction, error and depth of one view side by side."""
    save_image(path, strip(view, near_far))


def strip(view: ViewImages, near_far: Sequence[float]) -> Float[Tensor, "3 height width"]:
    """Lay out truth, prediction, error (black 0 to bright 0.5) and depth."""
    rgb = view.rgb.clamp(0, 1)
    error = colorize((rgb - view.true_rgb).abs().mean(0), 0.0, _BRIGHTEST_ERROR, "inferno")
    depth = colorize(view.depth, near_far[0], near_far[1])
    return torch.cat([view.true_rgb, rgb, error, depth], -1)


def _on_cpu(view: ViewImages) -> ViewImages:
    return ViewImages(**{name: value.cpu() for name, value in vars(view).items()})
