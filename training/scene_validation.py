"""Rendering and measuring the test views of a fine-tuned scene."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from datasets.protocols import Region
from datasets.views import Views
from evaluation.rendering import ViewResult
from evaluation.scores import (
    ImageDistance,
    ViewImages,
    counted_pixels,
    describe_region,
    view_scores,
)
from models.scene_model import SceneModel
from utils.images import psnr


class TestViews:
    """The test views of a scene, on the device."""

    __test__ = False

    def __init__(
        self, views: Views, ids: Sequence[int], region: Region, chunk: int, bf16: bool = False
    ) -> None:
        """Keep the views ``(view,)``, their numbers and the pixels that count."""
        self.views, self.ids, self.region = views, tuple(ids), region
        self.chunk, self.bf16 = chunk, bf16

    def render(self, scene: SceneModel) -> list[ViewImages]:
        """Render every view beside its truth."""
        views = self.views
        with torch.autocast(views.images.device.type, torch.bfloat16, enabled=self.bf16):
            images = scene.render_images(views.cameras, views.size, self.chunk)
        predicted = (images.rgb.float(), images.depth.float(), images.opacity.float())
        return [
            ViewImages(*parts)
            for parts in zip(*predicted, views.images, views.depths, views.masks, strict=True)
        ]

    def mean_psnr(self, rendered: Sequence[ViewImages]) -> float:
        """Return the mean PSNR, as ``view_scores`` has it, over the views that have pixels.

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
        train_ids: Sequence[int],
        perceptual: ImageDistance | None = None,
    ) -> list[ViewResult]:
        """Render and measure every view as evaluation does; name sources by ``train_ids``."""
        chosen = scene.sources_of(self.views.cameras, self.views.size).tolist()
        started = time.perf_counter()
        rendered = [_on_cpu(view) for view in self.render(scene)]
        seconds = (time.perf_counter() - started) / len(rendered)
        return [
            ViewResult(
                target=number,
                sources=tuple(train_ids[place] for place in sources),
                region=describe_region(images, self.region),
                scores=view_scores(images, self.region, perceptual),
                images=images,
                encode_seconds=0.0,
                render_seconds=seconds,
            )
            for number, sources, images in zip(self.ids, chosen, rendered, strict=True)
        ]


def _on_cpu(view: ViewImages) -> ViewImages:
    return ViewImages(**{name: value.cpu() for name, value in vars(view).items()})
