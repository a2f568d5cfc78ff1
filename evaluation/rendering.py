"""Rendering and timing the targets of a task with a trained model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from datasets.protocols import SceneTask
from datasets.views import Sample, collate_samples
from evaluation.scores import ImageDistance, Scores, ViewImages, describe_region, view_scores
from models.vggt_nerf import VGGTNeRF


@dataclass(frozen=True)
class ViewResult:
    """One rendered target with its figures."""

    target: int
    sources: tuple[int, ...]
    region: str
    scores: Scores
    images: ViewImages
    encode_seconds: float
    """From source images to what rendering needs."""
    render_seconds: float
    """From there to the whole image."""


@dataclass(frozen=True)
class Renderer:
    """A model on its device, and how it is to render there."""

    model: VGGTNeRF
    device: torch.device
    chunk: int
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

    def _now(self) -> float:
        """Read the clock when the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def evaluate_scene(
    task: SceneTask, renderers: Sequence[Renderer], perceptual: ImageDistance | None = None
) -> list[ViewResult]:
    """Render and measure a scene's targets, shared among renderers, each on its own device."""
    count = len(renderers)

    def render_share(first: int) -> list[tuple[ViewImages, float, float]]:
        indices = range(first, len(task.targets), count)
        return [renderers[first](task_sample(task, index)) for index in indices]

    if count == 1:
        # In this thread, where Ctrl-C can stop it.
        shares = [render_share(0)]
    else:
        with ThreadPoolExecutor(count) as pool:
            shares = list(pool.map(render_share, range(count)))
    results = []
    for index, (target, sources) in enumerate(zip(task.targets, task.sources, strict=True)):
        images, encode_seconds, render_seconds = shares[index % count][index // count]
        region = describe_region(images, task.region)
        scores = view_scores(images, task.region, perceptual)
        seconds = (encode_seconds, render_seconds)
        results.append(ViewResult(target, sources, region, scores, images, *seconds))
    return results


def task_sample(task: SceneTask, index: int) -> Sample:
    """Read one target of a scene with its sources."""
    sources = task.sources[index]
    return task.scene.sample(task.targets[index], sources, len(sources))
