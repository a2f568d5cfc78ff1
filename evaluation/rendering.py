"""Rendering, timing and scoring of the targets of a task or the test views of a scene."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from datasets.protocols import Region, SceneTask
from datasets.views import Sample, Views, collate_samples
from evaluation.coverage import seen_by_sources
from evaluation.scores import (
    ImageDistance,
    Scores,
    ViewImages,
    counted_pixels,
    describe_region,
    psnr,
    view_scores,
)
from models.novel_view import NovelViewModel
from models.scenes.scene_model import TunableScene
from utils.errors import UserError


@dataclass(frozen=True)
class ViewResult:
    """One rendered target with its scores."""

    target: int
    sources: tuple[int, ...]
    region: str
    scores: Scores
    images: ViewImages
    encode_seconds: float
    """Time from source images to scene features."""
    render_seconds: float
    """Time from scene features to the whole image."""


@dataclass(frozen=True)
class Renderer:
    """A model on its device, with chunk size and precision."""

    model: NovelViewModel
    device: torch.device
    chunk: int | None = None
    bf16: bool = False

    @torch.no_grad()
    def __call__(self, sample: Sample) -> tuple[ViewImages, float, float]:
        """Render the first target; return it with the seconds for encoding and for rendering."""
        batch = collate_samples([sample]).to(self.device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        target = batch.targets
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            started = self._now()
            scene = self.model.encode(batch.sources, batch.near_far)
            encoded = self._now()
            images = self.model.render_images(
                scene, target.cameras[:, 0], batch.near_far, target.size, self.chunk
            )
            rendered = self._now()
        view = ViewImages.pair(images, sample.targets, 0).cpu()
        return view, encoded - started, rendered - encoded

    def warm_up(self, sample: Sample) -> None:
        """Render twice on a GPU: the first uses of a size tune kernels and capture graphs."""
        if self.device.type == "cuda":
            self(sample)
            self(sample)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def evaluate_scene(
    task: SceneTask, renderers: Sequence[Renderer], perceptual: ImageDistance | None = None
) -> list[ViewResult]:
    """Render and score the targets of a scene, distributed over the renderers' devices."""
    count = len(renderers)
    for renderer in renderers:
        renderer.warm_up(task_sample(task, 0))

    def render_share(first: int) -> list[tuple[ViewImages, float, float]]:
        indices = range(first, len(task.targets), count)
        return [renderers[first](task_sample(task, index)) for index in indices]

    if count == 1:
        # In the main thread, so that Ctrl-C can stop it.
        shares = [render_share(0)]
    else:
        with ThreadPoolExecutor(count) as pool:
            shares = list(pool.map(render_share, range(count)))
    results = []
    for index, (target, sources) in enumerate(zip(task.targets, task.sources, strict=True)):
        images, *seconds = shares[index % count][index // count]
        cameras = task.scene.cameras[[task.scene.view_ids.index(v) for v in (target, *sources)]]
        seen = seen_by_sources(images.depth, cameras[0], cameras[1:], task.scene.image_size)
        scored = _scored(images, task.region, perceptual, seen)
        results.append(ViewResult(target, sources, *scored, *seconds))
    return results


def _scored(
    images: ViewImages,
    region: Region,
    perceptual: ImageDistance | None,
    seen: Bool[Tensor, "height width"],
) -> tuple[str, Scores, ViewImages]:
    if not images.rgb.isfinite().all():
        raise UserError(
            "The model renders values that are not finite: its weights or its arithmetic overflow. "
            "Take an earlier checkpoint, or --precision 32-true."
        )
    return describe_region(images, region), view_scores(images, region, perceptual, seen), images


def task_sample(task: SceneTask, index: int) -> Sample:
    """Read one target of a scene with its sources."""
    sources = task.sources[index]
    return task.scene.sample(task.targets[index], sources, len(sources))


class TestViews:
    """Test views of a fine-tuned scene, on its device."""

    __test__ = False

    def __init__(
        self,
        views: Views,
        ids: Sequence[int],
        region: Region,
        chunk: int | None = None,
        bf16: bool = False,
    ) -> None:
        """Store views ``(view,)``, their numbers and the evaluated region."""
        self.views, self.ids, self.region = views, tuple(ids), region
        self.chunk, self.bf16 = chunk, bf16

    def render(self, scene: TunableScene) -> list[ViewImages]:
        """Render every view and pair it with its truth."""
        views = self.views
        with torch.autocast(views.images.device.type, torch.bfloat16, enabled=self.bf16):
            images = scene.render_images(views.cameras, views.size, self.chunk)
        return [ViewImages.pair(images, views, index) for index in range(len(views.images))]

    def mean_psnr(self, rendered: Sequence[ViewImages]) -> float:
        """Return the mean PSNR over the views with evaluated pixels; NaN if there is none."""
        values = []
        for view in rendered:
            inner = view.cropped(self.region.border)
            counted = counted_pixels(inner, self.region)
            if counted.any():
                values.append(psnr(inner.rgb.clamp(0, 1), inner.true_rgb, counted))
        return torch.stack(values).mean().item() if values else math.nan

    def results(
        self,
        scene: TunableScene,
        train_ids: Sequence[int],
        perceptual: ImageDistance | None = None,
    ) -> list[ViewResult]:
        """Render and score every view; ``train_ids`` are the numbers of the source views."""
        source_indices = scene.sources_of(self.views.cameras, self.views.size).tolist()
        cameras, pool = self.views.cameras.to("cpu"), scene.cameras.to("cpu")
        started = time.perf_counter()
        rendered = [view.cpu() for view in self.render(scene)]
        seconds = (time.perf_counter() - started) / len(rendered)
        results = []
        for index, (images, sources) in enumerate(zip(rendered, source_indices, strict=True)):
            seen = seen_by_sources(images.depth, cameras[index], pool[sources], scene.size)
            source_ids = tuple(train_ids[source] for source in sources)
            scored = _scored(images, self.region, perceptual, seen)
            results.append(ViewResult(self.ids[index], source_ids, *scored, 0.0, seconds))
        return results
