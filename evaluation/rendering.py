"""Predicting the targets of a task with a trained model, and timing it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from datasets.protocols import SceneTask
from datasets.views import Sample, collate_samples
from evaluation.scores import (
    ImageDistance,
    Scores,
    ViewImages,
    describe_region,
    view_scores,
)
from models.vggt_nerf import RenderedImages, VGGTNeRF


@dataclass(frozen=True)
class RenderedView:
    """A target beside its truth, and how long it took."""

    images: ViewImages
    encode_seconds: float
    """From source images to what rendering needs."""
    render_seconds: float
    """From there to the whole image."""


@dataclass(frozen=True)
class ViewResult:
    """What is known of one target in the end."""

    target: int
    sources: tuple[int, ...]
    region: str
    scores: Scores
    rendered: RenderedView


@dataclass(frozen=True)
class Renderer:
    """A model on its device, and how it is to render there."""

    model: VGGTNeRF
    device: torch.device
    chunk: int
    bf16: bool = False

    @torch.no_grad()
    def __call__(self, sample: Sample) -> RenderedView:
        """Predict the first target of one scene."""
        batch = collate_samples([sample]).to(self.device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            started = self._now()
            scene = self.model.encode(batch.sources, batch.near_far)
            encoded = self._now()
            target = batch.targets
            images = self.model.render_images(
                scene, target.cameras[:, 0], batch.near_far, target.size, self.chunk
            )
            rendered = self._now()
        return RenderedView(_beside_truth(images, sample), encoded - started, rendered - encoded)

    def _now(self) -> float:
        """Read the clock when everything that was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def evaluate_scene(
    task: SceneTask, renderers: Sequence[Renderer], perceptual: ImageDistance | None = None
) -> list[ViewResult]:
    """Render and measure a scene's targets. The renderers take turns, each on its own device."""

    def render_share(first: int) -> list[RenderedView]:
        places = range(first, len(task.targets), len(renderers))
        return [renderers[first](task_sample(task, place)) for place in places]

    shares = _map_in_threads(render_share, len(renderers))
    results = []
    for place, (target, sources) in enumerate(zip(task.targets, task.sources, strict=True)):
        rendered = shares[place % len(renderers)][place // len(renderers)]
        results.append(
            ViewResult(
                target=target,
                sources=sources,
                region=describe_region(rendered.images, task.region),
                scores=view_scores(rendered.images, task.region, perceptual),
                rendered=rendered,
            )
        )
    return results


def task_sample(task: SceneTask, place: int) -> Sample:
    """Read one target of a scene with its sources.

    Raises:
        UserError: A file of it is damaged.
    """
    sources = task.sources[place]
    return task.scene.sample(task.targets[place], sources, len(sources))


def _map_in_threads(
    job: Callable[[int], list[RenderedView]], count: int
) -> list[list[RenderedView]]:
    # A single job stays in this thread, where Ctrl-C can stop it.
    if count == 1:
        return [job(0)]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(job, range(count)))


def _beside_truth(images: RenderedImages, sample: Sample) -> ViewImages:
    target = sample.targets
    return ViewImages(
        rgb=images.rgb[0].float().cpu(),
        depth=images.depth[0].float().cpu(),
        opacity=images.opacity[0].float().cpu(),
        true_rgb=target.images[0],
        true_depth=target.depths[0],
        mask=target.masks[0],
    )
